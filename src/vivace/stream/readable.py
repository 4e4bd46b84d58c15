"""What a reader sees of a stream, wherever its events come from: a log, who reads it, and the verbs.

Two kinds of streams are read: one at work here (`run.StreamRun`) and the mirror of one at work elsewhere
(`mirror.MirrorRun`).
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from vivace.stream.attendance import Attendance
from vivace.stream.diagnostics import StreamDiagnostics
from vivace.stream.journal import Progress, RunRecord
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import RunOptions
from vivace.stream.work import Writer
from vivace.types.errors import VivaceError
from vivace.types.events import FinishReason

if TYPE_CHECKING:
    from vivace.stream.reader import ReaderReport


MAX_LEAD_S = 120.0
"""A reader that is further behind than this is not looked at more closely."""
REPORT_HOLDS_S = 5.0
"""What a reader said of its unread text is believed for so long."""


class ReadableStream:
    """A numbered log that can be read by many. Belongs to one event loop.

    Args:
        record: what a journal keeps of it; `record.stream_id` names it.
        options: how it behaves.
        log: its events.
        diagnostics: told of readers.
        keep_s: seconds that work goes on without a reader; None: to its end.
        on_left: called once nobody has read for so long.
    """

    def __init__(
        self,
        record: RunRecord,
        options: RunOptions,
        log: NumberedLog,
        diagnostics: StreamDiagnostics | None,
        *,
        keep_s: float | None = None,
        on_left: Callable[[], None] = lambda: None,
    ) -> None:
        self.record = record
        self.options = options
        self.log = log
        self.failure: VivaceError | None = None
        self._taken_number = 0
        self._in_flight_s = 0.0
        self._unread: tuple[float, float] | None = None
        self._diagnostics = diagnostics or StreamDiagnostics(record.stream_id)
        self._attendance = Attendance(keep_s, on_left, lambda: self.log.has_ended)

    @property
    def stream_id(self) -> str:
        """Its name; unguessable."""
        return self.record.stream_id

    @property
    def num_readers(self) -> int:
        """Readers that are attached."""
        return self._attendance.num_readers

    @property
    def progress(self) -> Mapping[int, Progress]:
        """How much of each choice is written."""
        raise NotImplementedError

    @property
    def writer(self) -> Writer:
        """Who writes its payloads."""
        raise NotImplementedError

    def cancel(self, reason: FinishReason = "cancelled") -> None:
        """End the work early; what there is stays readable. Nothing happens to a stream that has ended."""
        raise NotImplementedError

    def notice(self, name: str, told: Mapping[str, object]) -> None:
        """Write an event for readers that asked for such events; nothing once the stream has ended."""
        raise NotImplementedError

    async def join(self) -> None:
        """Wait until the stream has ended and cleaned up."""
        raise NotImplementedError

    async def read(self, starting_after: int = 0, idle_s: float | None = None) -> AsyncGenerator[LogEvent | None, None]:
        """The events after a number, to the end; leaving early may end the work, as the disconnect policy says.

        Arguments, yields and raises as `NumberedLog.follow`.
        """
        self._attendance.enter()
        self._taken_number = max(self._taken_number, min(starting_after, self.log.last_number))
        self._diagnostics.note_reader(max(0, self.log.last_number - starting_after), starting_after > 0)
        has_all = False
        try:
            async with aclosing(self.log.follow(starting_after, idle_s)) as events:
                async for event in events:
                    yield event
                    if event is not None:  # and now its reader wants the next one
                        self._taken_number = max(self._taken_number, event.number)
            has_all = True
        finally:
            self._attendance.leave()
            self._diagnostics.note_left(not has_all)

    def note_report(self, report: "ReaderReport", now_s: float) -> None:
        """A reader has told of itself."""
        if report.buffer_s is not None:
            self._unread = (now_s, report.buffer_s)
        self._diagnostics.note_report(report.buffer_s, report.rtt_s, report.num_stalls, report.utilisation)

    def note_network(self, in_flight_s: float, rtt_s: float | None) -> None:
        """What was measured of a reader's connection: reading time of what is on its way, and the round trip time."""
        self._in_flight_s = in_flight_s
        self._diagnostics.note_network(in_flight_s + self._untaken_s(), rtt_s)

    def lead(self, now_s: float) -> tuple[float, bool]:
        """Seconds of text that wait for the reader who is furthest, and whether that is all that does.

        It is all where the reader tells what it has left to read; otherwise there may be more on its screen.
        """
        waiting_s = self._untaken_s() + (self._in_flight_s if self.num_readers else 0.0)
        if self._unread is None:
            return waiting_s, False
        at_s, unread_s = self._unread
        return waiting_s + max(0.0, unread_s - (now_s - at_s)), now_s - at_s < REPORT_HOLDS_S

    def _untaken_s(self) -> float:
        return self.log.reading_s_after(self._taken_number, MAX_LEAD_S)
