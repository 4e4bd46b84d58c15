"""One reader of a stream: what it is shown when, and what it reports about itself."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from vivace.stream.log import LogEvent
from vivace.stream.pacing import pace
from vivace.stream.readable import ReadableStream
from vivace.stream.reader_speed import ReaderSpeed


@dataclass(frozen=True, slots=True)
class ReaderReport:
    """What a reader tells about itself; every field is optional.

    Args:
        number: of the last event that was read (or scrolled past).
        buffer_s: reading time of the text that has arrived and is not read.
        rtt_s: round trip time that it has measured.
        num_stalls: how often it ran out of text since its last report.
        utilisation: how full its own playback buffer is, 0 to 1.
    """

    number: int | None = None
    buffer_s: float | None = None
    rtt_s: float | None = None
    num_stalls: int = 0
    utilisation: float | None = None


class StreamReader:
    """Follows a run at the pace of its reader. Belongs to the event loop.

    Args:
        run: what is read.
        starting_after: number of the last event that the reader has.
        idle_s: None is yielded whenever nothing was written for so long.
    """

    def __init__(self, run: ReadableStream, starting_after: int = 0, idle_s: float | None = None) -> None:
        self.run = run
        self._number = starting_after
        self._idle_s = idle_s
        self._speed = ReaderSpeed()
        self._hurry = asyncio.Event()
        self._holds_back = True
        self.rtt_s: float | None = None
        self.set_pace(run.options.pace)

    @property
    def speed(self) -> float:
        """How fast it reads, 1 being usual."""
        return self._speed.speed

    def set_pace(self, name: str, speed: float | None = None) -> None:
        """Show text at another pace from now on.

        Raises:
            RequestError: there is no pace of that name.
        """
        self._pacer = pace(name)()
        if speed is not None:
            self._speed.speed = speed
        self._hurry.set()  # what waits was timed by the old pace

    def hold_back(self, may_hold: bool) -> None:
        """Whether text may be kept back for pacing: on a poor network it had better be at the reader's end."""
        self._holds_back = may_hold
        self._hurry.set()

    def note(self, report: ReaderReport) -> None:
        """Take what the reader tells; one that has read all is not kept waiting."""
        self.run.note_report(report, _now_s())
        self.rtt_s = self.rtt_s if report.rtt_s is None else report.rtt_s
        if report.number is not None and self._speed.note_read(report.number, _now_s()):
            self._hurry.set()

    async def events(self) -> AsyncGenerator[LogEvent | None, None]:
        """The events, those to come included, to the end.

        Raises:
            OffsetLostError, RequestError: as `NumberedLog.follow`.
        """
        async with aclosing(self.run.read(self._number, self._idle_s)) as events:
            async for event in events:
                if event is not None:
                    await self._wait_for_turn(event)
                    self._speed.note_shown(event.number, event.reading_s, _now_s())
                yield event

    async def _wait_for_turn(self, event: LogEvent) -> None:
        if self._pacer is None or not self._holds_back:
            return
        self._pacer.speed = self._speed.speed
        backlog_s = self.run.log.reading_s_after(event.number)
        delay_s = self._pacer.delay_s(event.reading_s, backlog_s, _now_s())
        if delay_s <= 0:
            return
        self._hurry.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), delay_s)
            if self._pacer is not None:
                self._pacer.read_until_s = _now_s() + event.reading_s / self._speed.speed


def _now_s() -> float:
    return asyncio.get_running_loop().time()
