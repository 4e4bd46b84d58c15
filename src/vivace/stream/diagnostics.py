"""One log line for each thing that happens to a stream, in a form that people and programs read; off by default.

    [2026-01-31T12:00:00.000Z] stream_id=... action=start
    [2026-01-31T12:00:00.150Z] stream_id=... token_id=1 latency=150ms
    [2026-01-31T12:00:04.500Z] stream_id=... action=complete total_tokens=150

Turned on with the level INFO of the logger "vivace.stream"; a sampled share of the streams is told. Never a text.
"""

import logging
import zlib
from datetime import UTC, datetime

from vivace.telemetry.clock import Clock, now_ns

logger = logging.getLogger("vivace.stream")

SHOWN_ID = 16
"""Characters of an id that are written: the whole id would let a reader of the log read the stream."""


class StreamDiagnostics:
    """The lines of one stream.

    Args:
        stream_id: of the stream.
        share: share of all streams that are told, 0 to 1; the id decides which.
        clock: for latencies.
    """

    __slots__ = ("_clock", "_is_told", "_last_ns", "_num_tokens", "_stream_id")

    def __init__(self, stream_id: str, share: float = 1.0, clock: Clock = now_ns) -> None:
        self._stream_id = stream_id[:SHOWN_ID]
        self._clock = clock
        self._is_told = zlib.crc32(stream_id.encode()) < share * 2**32
        self._last_ns = clock()
        self._num_tokens = 0

    def note_start(self) -> None:
        """The request was accepted."""
        self._tell("action=start")

    def note_tokens(self, num_tokens: int) -> None:
        """So many tokens have come together."""
        now = self._clock()
        self._num_tokens += num_tokens
        if num_tokens:
            self._tell(f"token_id={self._num_tokens} latency={(now - self._last_ns) // 1_000_000}ms")
            self._last_ns = now

    def note_buffer(self, num_events: int) -> None:
        """A reader has attached with so many events to replay."""
        self._tell(f"buffer_size={num_events}")

    def note_end(self, status: str) -> None:
        """The terminal event was written."""
        action = "complete" if status == "completed" else status
        self._tell(f"action={action} total_tokens={self._num_tokens}")

    def _tell(self, what: str) -> None:
        if self._is_told and logger.isEnabledFor(logging.INFO):
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            logger.info("[%s] stream_id=%s %s", stamp, self._stream_id, what)
