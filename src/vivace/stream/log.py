"""The numbered log: one writer appends, any number of readers attach at a number, replay, then follow.

Belongs to one event loop: nothing here takes a lock, and no method but `follow` waits.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from itertools import islice

from vivace.stream.errors import OffsetLostError, StreamMovedError
from vivace.stream.lifecycle import Lifecycle, StreamStatus
from vivace.types.errors import RequestError

READ_AT_ONCE = 16
"""Events that a reader takes at a time: one that stops there keeps no more than these alive."""
EVENT_OVERHEAD_BYTES = 200
"""What an event costs in memory beside its payload, roughly (object, number, list slot)."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a stream.

    Args:
        number: from 1, without gaps.
        name: "" for a piece of the answer, which every client reads; else the name of an event that a client must have
            asked for ("queued", "prefill", "slow", "end").
        payload: what goes on the wire.
        reading_s: how long a person takes to read the text it carries, for pacing.
    """

    number: int
    name: str
    payload: bytes
    reading_s: float = 0.0

    @property
    def num_bytes(self) -> int:
        """Memory that the event is counted with."""
        return len(self.payload) + EVENT_OVERHEAD_BYTES


class NumberedLog:
    """Events numbered from 1, the newest `max_bytes` of them held.

    Args:
        max_bytes: older events are dropped beyond it; the newest is always held.
        events: what a log from before a restart held, consecutive.
    """

    def __init__(self, max_bytes: int, events: Iterable[LogEvent] = ()) -> None:
        self._max_bytes = max_bytes
        self._events: list[LogEvent] = list(events)
        self._last = self._events[-1].number if self._events else 0
        self._num_bytes = sum(event.num_bytes for event in self._events)
        self._lifecycle = Lifecycle()
        self._waiting: set[asyncio.Future[None]] = set()
        self._lost: StreamMovedError | None = None
        self._trim()

    @property
    def last_number(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._last

    @property
    def first_number(self) -> int:
        """Number of the oldest event that is held, or of the next one when none is."""
        return self._last - len(self._events) + 1

    @property
    def holds_answer(self) -> bool:
        """Whether some piece of the answer is held."""
        return any(not event.name for event in self._events)

    @property
    def num_bytes(self) -> int:
        """Memory of the events that are held."""
        return self._num_bytes

    @property
    def status(self) -> StreamStatus:
        """Whether the stream runs, or how it ended."""
        return self._lifecycle.status

    @property
    def has_ended(self) -> bool:
        """Whether no event will follow."""
        return self._lifecycle.has_ended

    @property
    def lost(self) -> StreamMovedError | None:
        """Why its readers have to read on elsewhere; None: they need not."""
        return self._lost

    def abandon(self, error: StreamMovedError) -> None:
        """Send all readers away: what was written last may not be what others have of the stream."""
        self._lost = error
        self._wake()

    def append(self, payload: bytes, *, name: str = "", reading_s: float = 0.0) -> LogEvent:
        """Write the next event and wake the readers."""
        assert not self.has_ended, "an ended log takes no event"
        return self._append(LogEvent(self._last + 1, name, payload, reading_s))

    def end(self, status: StreamStatus, payload: bytes) -> LogEvent:
        """Write the one terminal event.

        Raises:
            EngineError: the log has ended already.
        """
        self._lifecycle.end(status)
        return self._append(LogEvent(self._last + 1, "end", payload))

    def close_replayed(self, status: StreamStatus) -> None:
        """Take over the status of a log that had ended before a restart, its terminal event included.

        Raises:
            EngineError: the log has ended already.
        """
        self._lifecycle.end(status)
        self._wake()

    def after(self, number: int, most: int | None = None) -> list[LogEvent]:
        """The events after `number` that are there by now, the first `most` of them.

        Raises:
            OffsetLostError: the next event after `number` is no longer held.
            RequestError: no event `number` was ever written.
            StreamMovedError: the stream goes on elsewhere.
        """
        if self._lost is not None:
            raise self._lost
        if not 0 <= number <= self._last:
            raise RequestError(
                f"The stream has events 1 to {self._last}, and {number} is not one of them.",
                "Send the number of the last event that was received.",
                param="starting_after",
            )
        if number + 1 < self.first_number:
            raise OffsetLostError(
                f"The events after {number} are no longer held; the oldest one is {self.first_number}.",
                f"Read on with starting_after={self.first_number - 1}, or ask again from the start.",
            )
        begin = number + 1 - self.first_number
        return self._events[begin : None if most is None else begin + most]

    def reading_s_after(self, number: int, most_s: float = math.inf) -> float:
        """Reading time of the events after a number; no more is counted once it is over `most_s`."""
        total_s = 0.0
        for event in islice(self._events, max(0, number + 1 - self.first_number), None):
            total_s += event.reading_s
            if total_s > most_s:
                break
        return total_s

    async def follow(
        self, starting_after: int = 0, idle_s: float | None = None
    ) -> AsyncGenerator[LogEvent | None, None]:
        """All events after a number, those to come included, until the log has ended.

        A reader may take as long as it likes; when the events it needs are dropped meanwhile, it is told.

        Args:
            starting_after: number of the last event that the reader has.
            idle_s: None is yielded whenever nothing was written for so long (time for a sign of life).

        Raises:
            OffsetLostError, RequestError, StreamMovedError: as `after`.
        """
        number = starting_after
        while True:
            for event in self.after(number, READ_AT_ONCE):
                yield event
                number = event.number
            if number < self._last:
                continue
            if self.has_ended:
                return
            await self._next_change(idle_s)
            if number == self._last and not self.has_ended and self._lost is None:
                yield None

    def _append(self, event: LogEvent) -> LogEvent:
        self._last = event.number
        self._events.append(event)
        self._num_bytes += event.num_bytes
        self._trim()
        self._wake()
        return event

    async def _next_change(self, idle_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        changed: asyncio.Future[None] = loop.create_future()
        timer = None if idle_s is None else loop.call_later(idle_s, _resolve, changed)
        self._waiting.add(changed)
        try:
            await changed
        finally:
            self._waiting.discard(changed)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for changed in self._waiting:
            _resolve(changed)

    def shrink(self, max_bytes: int) -> None:
        """Drop the oldest events until so much is held; the newest is always held, and later ones are as before."""
        self._trim(max_bytes)

    def _trim(self, max_bytes: int | None = None) -> None:
        dropped, max_bytes = 0, self._max_bytes if max_bytes is None else max_bytes
        while self._num_bytes > max_bytes and dropped < len(self._events) - 1:
            self._num_bytes -= self._events[dropped].num_bytes
            dropped += 1
        del self._events[:dropped]


def _resolve(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
