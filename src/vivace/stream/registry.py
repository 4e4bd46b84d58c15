"""All streams of a process: found by an unguessable id and its owner, never listed, ended and forgotten in time."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vivace.stream.errors import UnknownStreamError
from vivace.stream.run import StreamRun
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns
from vivace.types.errors import OverloadedError


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """How much is kept for how long.

    Args:
        max_log_bytes: of one stream; beyond it the oldest events are dropped.
        max_total_bytes: of all streams; beyond it ended ones that nobody reads are forgotten, oldest first, then the
            oldest events of the longest logs are dropped.
        max_streams: running and ended ones together.
        retain_s: an ended stream stays readable this long.
        max_run_s: no stream runs longer; the reaper ends it.
        reap_interval_s: time between two looks of the reaper.
    """

    max_log_bytes: int = 8 * 1024 * 1024
    max_total_bytes: int = 256 * 1024 * 1024
    max_streams: int = 10_000
    retain_s: float = 300.0
    max_run_s: float = 3600.0
    reap_interval_s: float = 5.0


ABORT_AFTER_S = 10.0
"""A stream that was told to end and has not is torn down this much later."""


def new_stream_id(prefix: str = "stream-") -> str:
    """A name with 192 random bits."""
    return f"{prefix}{secrets.token_urlsafe(24)}"


def owner_of(api_key: str) -> str:
    """What is remembered of the caller: a hash of the key, of the empty one too."""
    return hashlib.sha256(b"vivace-stream-owner:" + api_key.encode()).hexdigest()


def fair_share(sizes: Sequence[int], total: int) -> int:
    """The most that one may have so that all have `total` at most: those that want less keep what they have."""
    left = total
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


@dataclass(slots=True)
class _Entry:
    run: StreamRun
    started_ns: int
    ended_ns: int | None = None
    told_ns: int | None = None


class StreamRegistry:
    """Keeps runs by id. Belongs to one event loop.

    Args:
        limits: how much is kept.
        forget: called with the id of each stream that somebody wants forgotten.
        release: called with the id of each stream that is no longer kept here, because of its age or of the room.
        clock: for ages.
    """

    def __init__(
        self,
        limits: RegistryLimits | None = None,
        *,
        forget: Callable[[str], None] = lambda stream_id: None,
        release: Callable[[str], None] = lambda stream_id: None,
        clock: Clock = now_ns,
    ) -> None:
        self.limits = limits or RegistryLimits()
        self._forget = forget
        self._release = release
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._reaper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory of all logs."""
        return sum(entry.run.log.num_bytes for entry in self._entries.values())

    def add(self, run: StreamRun) -> None:
        """Keep a run, and start the reaper with the first one.

        Raises:
            OverloadedError: all places are taken by streams that run.
        """
        if len(self._entries) >= self.limits.max_streams:
            self.reap()
            self._drop_ended(len(self._entries) - self.limits.max_streams + 1)
        if len(self._entries) >= self.limits.max_streams:
            raise OverloadedError("Too many streams are running.", "Try again later.", retry_after_s=5)
        self._entries[run.stream_id] = _Entry(run, self._clock())
        if self._reaper is None or self._reaper.done():
            self._reaper = asyncio.get_running_loop().create_task(self._reap_for_ever())

    def find(self, stream_id: str, owner: str) -> StreamRun:
        """The stream of that name, if it is the owner's.

        Raises:
            UnknownStreamError: there is none, it was forgotten, or it is somebody else's.
        """
        entry = self._entries.get(stream_id)
        if entry is not None and entry.run.log.lost is not None:
            del self._entries[stream_id]
            entry = None
        if entry is None or not secrets.compare_digest(entry.run.record.owner, owner):
            raise UnknownStreamError(
                f"There is no stream {stream_id[:64]!r}, or no longer.",
                "Streams are kept for some time after their end.",
            )
        return entry.run

    def discard(self, stream_id: str) -> None:
        """Forget a stream at once."""
        if self._entries.pop(stream_id, None) is not None:
            self._forget(stream_id)

    def running(self) -> Iterator[StreamRun]:
        """The streams that have not ended, those left out that are lost to another server."""
        runs = [entry.run for entry in self._entries.values()]
        return (run for run in runs if run.log.lost is None and not run.log.has_ended)

    def _let_go(self, stream_id: str) -> None:
        if self._entries.pop(stream_id, None) is not None:
            self._release(stream_id)

    def reap(self) -> None:
        """One look at every stream: end those that run too long, forget those that ended long ago or are too many."""
        now, limits = self._clock(), self.limits
        for stream_id, entry in list(self._entries.items()):
            if entry.run.log.lost is not None:
                del self._entries[stream_id]
                continue
            if not entry.run.log.has_ended:
                self._end_overdue(entry, now)
                continue
            entry.ended_ns = entry.ended_ns or now
            retain_s = max(limits.retain_s, entry.run.options.retain_s or 0.0)
            if entry.run.num_readers == 0 and now - entry.ended_ns > retain_s * NS_PER_S:
                self._let_go(stream_id)
        while self.num_bytes > limits.max_total_bytes and self._drop_ended(1):
            pass
        self._shrink()

    def _shrink(self) -> None:
        """Hold the logs of streams that run, or are read by somebody slow, to the room that there is for all."""
        logs = [entry.run.log for entry in self._entries.values()]
        most = fair_share([log.num_bytes for log in logs], self.limits.max_total_bytes)
        for log in logs:
            if log.num_bytes > most:
                log.shrink(most)

    async def close(self) -> None:
        """End every stream and the reaper."""
        runs = [entry.run for entry in self._entries.values()]
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
        for run in runs:
            run.abort()
        for run in runs:
            await run.join()

    def _end_overdue(self, entry: _Entry, now: int) -> None:
        if entry.told_ns is not None:
            if now - entry.told_ns > ABORT_AFTER_S * NS_PER_S:
                entry.run.abort()
        elif now - entry.started_ns > self.limits.max_run_s * NS_PER_S:
            entry.told_ns = now
            entry.run.cancel("timeout")

    def _drop_ended(self, count: int) -> bool:
        """Forget the `count` oldest ended streams that nobody reads; whether there was one."""
        ended = [
            stream_id
            for stream_id, entry in self._entries.items()
            if entry.run.log.has_ended and entry.run.num_readers == 0
        ]
        for stream_id in ended[:count]:
            self._let_go(stream_id)
        return bool(ended)

    async def _reap_for_ever(self) -> None:
        while self._entries:
            await asyncio.sleep(self.limits.reap_interval_s)
            self.reap()
