"""One log line for each thing that happens to a stream, in a form that people and programs read; off by default.

    [2026-01-31T12:00:00.000Z] stream_id=... action=start
    [2026-01-31T12:00:00.150Z] stream_id=... token_id=1 latency=150ms
    [2026-01-31T12:00:02.000Z] stream_id=... buffer_size=0.8s network_rtt=45ms
    [2026-01-31T12:00:04.500Z] stream_id=... action=complete total_tokens=150

Turned on with the level INFO of the logger "vivace.stream"; a sampled share of the streams is told. Never a text.
The same things are told to a meter, which counts all streams.
"""

import logging
import zlib
from datetime import UTC, datetime

from vivace.stream.meter import NoMeter, StreamMeter
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns

logger = logging.getLogger("vivace.stream")

SHOWN_ID = 16
"""Characters of an id that are written: the whole id would let a reader of the log read the stream."""


class StreamDiagnostics:
    """The lines of one stream.

    Args:
        stream_id: of the stream.
        share: share of all streams that are told, 0 to 1; the id decides which.
        clock: for latencies.
        meter: counts.
    """

    __slots__ = ("_clock", "_first_ns", "_is_told", "_last_ns", "_meter", "_num_tokens", "_stream_id")

    def __init__(
        self, stream_id: str, share: float = 1.0, clock: Clock = now_ns, meter: StreamMeter | None = None
    ) -> None:
        self._stream_id = stream_id[:SHOWN_ID]
        self._clock = clock
        self._meter: StreamMeter = meter or NoMeter()
        self._is_told = zlib.crc32(stream_id.encode()) < share * 2**32
        self._last_ns = clock()
        self._first_ns = self._last_ns
        self._num_tokens = 0

    def note_start(self) -> None:
        """The request was accepted."""
        self._meter.started()
        self._tell("action=start")

    def note_tokens(self, num_tokens: int) -> None:
        """So many tokens have come together."""
        if not num_tokens:
            return
        now = self._clock()
        latency = now - self._last_ns
        if self._num_tokens == 0:
            self._first_ns = now
            self._meter.first_token(latency / NS_PER_S)
        self._meter.tokens(num_tokens, latency / NS_PER_S if self._num_tokens else 0.0)
        self._num_tokens += num_tokens
        self._last_ns = now
        self._tell(f"token_id={self._num_tokens} latency={latency // 1_000_000}ms")

    def note_reader(self, num_events: int, is_resume: bool) -> None:
        """A reader has attached with so many events to replay."""
        self._meter.reader_came(is_resume)
        self._tell(f"action={'resume' if is_resume else 'read'} replayed_events={num_events}")

    def note_left(self, is_early: bool) -> None:
        """A reader has gone, before the end or at it."""
        self._meter.reader_left(is_early)
        if is_early:
            self._tell("action=interrupted")

    def note_report(
        self, buffer_s: float | None, rtt_s: float | None, num_stalls: int, utilisation: float | None = None
    ) -> None:
        """A reader has told of itself."""
        self._meter.reported(buffer_s, rtt_s, num_stalls, utilisation)
        self._tell_network(buffer_s, rtt_s)

    def note_network(self, backlog_s: float, rtt_s: float | None) -> None:
        """A connection was measured: text that it has not taken, and its round trip time."""
        self._meter.measured(backlog_s, rtt_s)
        self._tell_network(backlog_s, rtt_s)

    def _tell_network(self, buffer_s: float | None, rtt_s: float | None) -> None:
        told = [] if buffer_s is None else [f"buffer_size={buffer_s:.1f}s"]
        if rtt_s is not None:
            told.append(f"network_rtt={rtt_s * 1e3:.0f}ms")
        if told:
            self._tell(" ".join(told))

    def note_end(self, status: str) -> None:
        """The terminal event was written."""
        self._meter.ended(status, self._num_tokens, (self._last_ns - self._first_ns) / NS_PER_S)
        action = "complete" if status == "completed" else status
        self._tell(f"action={action} total_tokens={self._num_tokens}")

    def _tell(self, what: str) -> None:
        if self._is_told and logger.isEnabledFor(logging.INFO):
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            logger.info("[%s] stream_id=%s %s", stamp, self._stream_id, what)
