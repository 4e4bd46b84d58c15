"""Streams in a Redis that several servers share (the extra `redis`): what is written here is read and taken over there.

Every event is in Redis before a reader sees it. Writes are one script each and wait for their answer, for at most
`TIMEOUT_S`; one that got none is said again, which does no harm. Whether a write may happen is decided in Redis by the
stream's fencing token.
"""

import importlib.util
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any

from vivace.stream import redis_scripts as scripts
from vivace.stream.errors import StreamMovedError
from vivace.stream.journal import Progress, RunRecord, SavedRun, note_saved
from vivace.stream.journal_codec import decode_pairs, decode_progress, encode_pairs, encode_progress
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent
from vivace.stream.registry import RegistryLimits
from vivace.stream.shared_store import LeaseNews, StreamHead
from vivace.types.errors import ConfigError, MissingExtraError, OverloadedError, StorageError

TIMEOUT_S = 1.0
"""A write or a question that has no answer by then is said again, twice."""
REST_S = 1.0
"""After Redis could not be reached, nothing is tried for so long: a server full of streams does not wait for each."""
FOLLOW_BLOCK_MS = 1000
FOLLOW_EVENTS = 256
SWEPT_AT_ONCE = 100


def require_redis() -> None:
    """See that the client library is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if importlib.util.find_spec("redis") is None:
        raise MissingExtraError(
            "A shared stream store needs the package redis.", "Install it with: pip install 'vivace[redis]'."
        )


class RedisStore:
    """A `SharedStore` in Redis 6 or later.

    Args:
        url: redis://, rediss:// or unix://; a password in it is never shown.
        lease_s: see `StoreConfig`.
        limits: how much is kept for how long.
        server: a name for this server that no other has; made when None.

    Raises:
        MissingExtraError: the client library is not installed.
        ConfigError: the URL is none, or nothing answers there.
    """

    def __init__(
        self, url: str, lease_s: float = 5.0, limits: RegistryLimits | None = None, *, server: str | None = None
    ) -> None:
        require_redis()
        import redis
        import redis.asyncio
        from redis.backoff import ExponentialBackoff
        from redis.retry import Retry

        if not 0.1 <= lease_s <= 600:
            raise ConfigError(f"The lease of streams is {lease_s:g} s.", "Give 0.1 to 600 seconds.")
        self.server = server or secrets.token_hex(8)
        self._lease_ms = round(lease_s * 1e3)
        self._limits = limits or RegistryLimits()
        self._fences: dict[str, int] = {}
        self._down_until_s = 0.0
        self._failures: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        try:
            retry = Retry(ExponentialBackoff(cap=0.1, base=0.01), 2)
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=retry
            )
            self._follow: Any = redis.asyncio.Redis.from_url(url, socket_timeout=FOLLOW_BLOCK_MS / 1e3 + 5)
            self._redis.ping()
        except ValueError:
            raise ConfigError("The URL of the stream store is none.", "Give redis://HOST:PORT/DB.") from None
        except self._failures as error:
            raise ConfigError(f"The stream store does not answer: {error}.", "Start Redis, or mend the URL.") from None
        names = ("BEGIN", "APPEND", "CLAIM", "BEAT", "ORPHANS", "SWEEP", "FORGET")
        self._scripts = {name: self._redis.register_script(getattr(scripts, name)) for name in names}

    # What a journal does ----------------------------------------------------------------------------------------------

    def begin(self, record: RunRecord) -> None:
        """See Journal.

        Raises:
            OverloadedError: Redis cannot be reached.
            StorageError: there is a stream of that name.
        """
        if record.stream_id in self._fences:  # claimed, and nothing was written of it yet
            return
        limits = self._limits
        retain_s = max(limits.retain_s, record.retain_s or 0.0)
        run_ms = round((limits.max_run_s + retain_s) * 1e3)
        own = (record.owner, record.kind, record.request, round(retain_s * 1e3))
        if not self._run("BEGIN", record.stream_id, *own, self.server, self._lease_ms, run_ms):
            raise StorageError(f"There is a stream {record.stream_id[:16]}... already.", "Send the request again.")
        self._fences[record.stream_id] = 1

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        """See Journal.

        Raises:
            StreamMovedError: another server holds the stream, or Redis cannot be reached.
        """
        self._write(stream_id, events, progress, StreamStatus.RUNNING)

    def end(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress], status: StreamStatus
    ) -> None:
        """See Journal; raises as `append`."""
        self._write(stream_id, events, progress, status)
        self._fences.pop(stream_id, None)

    def forget(self, stream_id: str) -> None:
        """See Journal."""
        self._fences.pop(stream_id, None)
        self._run("FORGET", stream_id)

    def release(self, stream_id: str) -> None:
        """See Journal. An ended one is kept in Redis for the others; one that runs is theirs when its lease ends."""
        self._fences.pop(stream_id, None)

    def load(self) -> list[SavedRun]:
        """See StreamStore: no stream is this process's own before it claims one."""
        return []

    def close(self) -> None:
        """See StreamStore."""
        self._redis.close()

    # What servers share -----------------------------------------------------------------------------------------------

    def head(self, stream_id: str) -> StreamHead | None:
        """See SharedStore."""
        fields = ("owner", "kind", "request", "status", "retain_ms")
        values = self._ask(lambda: self._redis.hmget(f"vivace:run:{stream_id}", fields))
        return None if values[3] is None else _head(stream_id, dict(zip(fields, values, strict=True)))

    def find(self, stream_id: str) -> SavedRun | None:
        """See SharedStore."""

        def ask() -> Any:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(f"vivace:run:{stream_id}")
            pipe.xrange(f"vivace:events:{stream_id}")
            pipe.get(f"vivace:tokens:{stream_id}")
            return pipe.execute()

        raw, entries, tokens = self._ask(ask)
        if not raw:
            return None
        fields = {name.decode(): value for name, value in raw.items()}
        head = _head(stream_id, fields)
        progress = decode_progress(fields["progress"])
        for choice, token_id in decode_pairs(tokens or b""):
            progress[choice].token_ids.append(token_id)
        note_saved(progress)
        return SavedRun(head.record, head.status, tuple(map(_event, entries)), progress)

    def orphans(self, most: int) -> list[str]:
        """See SharedStore."""
        return [name.decode() for name in self._run("ORPHANS", most)]

    def claim(self, stream_id: str) -> bool:
        """See SharedStore."""
        fence = self._run("CLAIM", stream_id, self.server, self._lease_ms)
        if fence:
            self._fences[stream_id] = fence
        return bool(fence)

    def stop(self, stream_id: str) -> None:
        """See SharedStore."""
        if self.head(stream_id) is not None:
            self._ask(lambda: self._redis.hset(f"vivace:run:{stream_id}", "stop", 1))

    def beat(self, read_here: Collection[str]) -> list[LeaseNews]:
        """See SharedStore. Also forgets what has been kept long enough."""
        held = dict(self._fences)
        pairs = [part for pair in held.items() for part in pair]
        told = self._run("BEAT", self._lease_ms, *pairs) if held else []
        if read_here:
            pipe = self._redis.pipeline(transaction=False)
            for stream_id in read_here:
                pipe.set(f"vivace:reader:{stream_id}", self.server, px=self._lease_ms)
            self._ask(pipe.execute)
        self._run("SWEEP", self._limits.max_total_bytes, SWEPT_AT_ONCE)
        news = [LeaseNews(stream_id, *map(bool, row)) for stream_id, row in zip(held, told, strict=True)]
        for known in news:
            if not known.is_ours and self._fences.get(known.stream_id) == held[known.stream_id]:
                self._fences.pop(known.stream_id, None)
        return news

    async def follow(self, stream_id: str, after: int) -> AsyncGenerator[Sequence[LogEvent], None]:
        """See SharedStore."""
        key, last = f"vivace:events:{stream_id}", f"{after}-0"
        try:
            while True:
                got = await self._follow.xread({key: last}, count=FOLLOW_EVENTS, block=FOLLOW_BLOCK_MS)
                entries = got[key.encode()][0] if isinstance(got, dict) and got else got[0][1] if got else []
                if entries:
                    last = entries[-1][0]
                    yield [_event(entry) for entry in entries]
                elif not await self._follow.exists(f"vivace:run:{stream_id}"):
                    raise StreamMovedError("The stream is not kept any more.", "Send the request again.")
        except self._failures as error:
            raise StreamMovedError(
                f"The stream store cannot be reached: {error}.", "Read on with the last number."
            ) from None

    # The way there ----------------------------------------------------------------------------------------------------

    def _write(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress], status: StreamStatus
    ) -> None:
        fence, limits = self._fences.get(stream_id), self._limits
        if fence is None:
            raise StreamMovedError("Another server goes on with the stream.", "Read on with the last number.")
        fresh = {choice: known.token_ids[known.num_saved :] for choice, known in progress.items()}
        num_saved = sum(known.num_saved for known in progress.values())
        told = [part for event in events for part in (event.name, event.payload, repr(event.reading_s))]
        state = (status.value, encode_progress(progress), encode_pairs(fresh), num_saved, events[0].number)
        bounds = (limits.max_log_bytes, self._lease_ms, round((limits.max_run_s + limits.retain_s) * 1e3))
        try:
            answer = self._run("APPEND", stream_id, fence, *state, *bounds, *told)
        except OverloadedError as error:
            self._fences.pop(stream_id, None)
            raise StreamMovedError(error.what, "Read on with the last number.") from None
        if answer != b"ok":
            self._fences.pop(stream_id, None)
            raise StreamMovedError("Another server goes on with the stream.", "Read on with the last number.")
        note_saved(progress)

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._ask(lambda: self._scripts[script](args=arguments))

    def _ask(self, question: Callable[[], Any]) -> Any:
        now_s = time.monotonic()
        if now_s < self._down_until_s:
            raise OverloadedError("The stream store cannot be reached.", "Try again in a moment.")
        try:
            return question()
        except self._failures as error:
            self._down_until_s = time.monotonic() + REST_S
            raise OverloadedError(f"The stream store cannot be reached: {error}.", "Try again in a moment.") from None


def _head(stream_id: str, fields: Mapping[str, bytes]) -> StreamHead:
    owner, kind, status = (fields[name].decode() for name in ("owner", "kind", "status"))
    record = RunRecord(stream_id, owner, kind, fields["request"], int(fields["retain_ms"]) / 1e3)
    return StreamHead(record, StreamStatus(status))


def _event(entry: tuple[bytes, Mapping[bytes, bytes]]) -> LogEvent:
    number, fields = entry
    return LogEvent(int(number.split(b"-")[0]), fields[b"n"].decode(), fields[b"p"], float(fields[b"r"]))
