"""Streams of several servers over one store: found wherever they run, taken over when their server died.

Owns the mirrors of other servers' streams, and the heartbeat. Belongs to the event loop of its server; the heartbeat's
talk with the store is had in a thread.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping

from vivace.server.kinds import decode_kept
from vivace.stream.diagnostics import StreamDiagnostics
from vivace.stream.errors import StreamMovedError, UnknownStreamError
from vivace.stream.journal import Progress, SavedRun
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import NumberedLog
from vivace.stream.mirror import MirrorRun
from vivace.stream.readable import ReadableStream
from vivace.stream.registry import StreamRegistry
from vivace.stream.run import StreamRun
from vivace.stream.shared_store import LeaseNews, SharedStore
from vivace.stream.work import Writer
from vivace.types.errors import VivaceError

logger = logging.getLogger(__name__)

BEATS_A_LEASE = 5
"""Heartbeats in the time of a lease: so many in a row have to be lost before a stream is."""
MIRROR_IDLE_S = 10.0
"""A mirror that nobody reads is kept so long, for readers that come back."""
ADOPTED_AT_ONCE = 16
"""Streams of a dead server that one server takes over with one beat: the others take theirs meanwhile."""


class SharedStreams:
    """What one server has to do with the streams of the others.

    Args:
        store: that they share.
        registry: of the streams at work here.
        lease_s: see `StoreConfig`.
        served: names of the models that are served here; none while they are loading.
        take_over: goes on here with a stream that was claimed, or reads one that has ended.
        diagnostics: of a mirror, by the name of its stream.
    """

    def __init__(
        self,
        store: SharedStore,
        registry: StreamRegistry,
        lease_s: float,
        *,
        served: Callable[[], Collection[str]],
        take_over: Callable[[SavedRun], StreamRun],
        diagnostics: Callable[[str], StreamDiagnostics],
    ) -> None:
        self._store = store
        self._registry = registry
        self._interval_s = lease_s / BEATS_A_LEASE
        self._served = served
        self._take_over = take_over
        self._diagnostics = diagnostics
        self._mirrors: dict[str, MirrorRun] = {}
        self._idle_since_s: dict[str, float] = {}

    def find(self, stream_id: str, owner: str) -> ReadableStream:
        """A stream that is not at work here: its mirror, or what is kept of it when it has ended.

        Raises:
            UnknownStreamError: there is none of that name, or it is somebody else's.
            OverloadedError: the store cannot be reached, or the model is still loading.
        """
        mirror = self._mirrors.get(stream_id)
        if mirror is not None and mirror.log.lost is None and not mirror.log.has_ended:
            _check_owner(mirror.record.owner, owner, stream_id)
            return mirror
        head = self._store.head(stream_id)
        _check_owner("" if head is None else head.record.owner, owner, stream_id)
        saved = self._store.find(stream_id)
        if saved is None:
            raise _unknown(stream_id)
        if saved.status is not StreamStatus.RUNNING:
            return self._take_over(saved)
        return self._mirror(saved)

    async def beat_for_ever(self) -> None:
        """Give signs of life, hear what others want, and take over what dead servers have left."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._beat()
            except VivaceError as error:
                logger.warning("the stream store: %s", error)
            except Exception:
                logger.exception("a heartbeat failed")

    async def _beat(self) -> None:
        await self._close_idle_mirrors()
        read_here = [name for name, mirror in self._mirrors.items() if mirror.num_readers]
        news = await asyncio.to_thread(self._store.beat, read_here)
        runs = {run.stream_id: run for run in self._registry.running()}
        for known in news:
            run = runs.get(known.stream_id)
            if run is not None:
                _heed(run, known)
        if self._served():
            for stream_id in await asyncio.to_thread(self._store.orphans, ADOPTED_AT_ONCE):
                self._adopt(stream_id)

    def _adopt(self, stream_id: str) -> None:
        """Go on with a stream whose server died, if its model is served here and nobody else was quicker."""
        head = self._store.head(stream_id)
        if head is not None and decode_kept(head.record.kind, head.record.request).reply.model not in self._served():
            return
        if not self._store.claim(stream_id):
            return
        try:
            saved = self._store.find(stream_id)
            if saved is not None:
                logger.warning("taking over stream %s...", stream_id[:16])
                self._take_over(saved)
        except Exception:
            self._store.release(stream_id)  # somebody else may have more luck
            raise

    def _mirror(self, saved: SavedRun) -> MirrorRun:
        record = saved.record
        stream_id = record.stream_id
        kept = decode_kept(record.kind, record.request)

        def look() -> tuple[Writer, Mapping[int, Progress]]:
            now = self._store.find(stream_id) or saved
            reply = decode_kept(record.kind, record.request).reply
            reply.restore(now)
            return reply, now.progress

        log = NumberedLog(self._registry.limits.max_log_bytes, saved.events)
        mirror = MirrorRun(
            record, kept.options, log, store=self._store, look=look, diagnostics=self._diagnostics(stream_id)
        )
        self._mirrors[stream_id] = mirror
        mirror.start()
        return mirror

    async def _close_idle_mirrors(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for stream_id, mirror in list(self._mirrors.items()):
            if mirror.num_readers:
                self._idle_since_s.pop(stream_id, None)
                continue
            idle_s = now_s - self._idle_since_s.setdefault(stream_id, now_s)
            if mirror.log.has_ended or mirror.log.lost is not None or idle_s > MIRROR_IDLE_S:
                del self._mirrors[stream_id], self._idle_since_s[stream_id]
                await mirror.close()


def _heed(run: StreamRun, known: LeaseNews) -> None:
    if not known.is_ours:
        run.lose(StreamMovedError("Another server goes on with the stream.", "Read on with the last number."))
        return
    run.set_read_elsewhere(known.is_read_elsewhere)
    if known.is_stop_wanted:
        run.cancel()


def _check_owner(known: str, owner: str, stream_id: str) -> None:
    if not secrets.compare_digest(known, owner):
        raise _unknown(stream_id)


def _unknown(stream_id: str) -> UnknownStreamError:
    return UnknownStreamError(
        f"There is no stream {stream_id[:64]!r}, or no longer.", "Streams are kept for some time after their end."
    )
