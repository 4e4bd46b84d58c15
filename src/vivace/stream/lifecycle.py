"""How a stream ends: exactly once, in one of four ways."""

from enum import StrEnum

from vivace.types.errors import EngineError
from vivace.types.events import FinishReason


class StreamStatus(StrEnum):
    """A stream runs until it is one of the other four, and stays that for ever."""

    RUNNING = "running"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


_STATUS_OF_REASON: dict[FinishReason, StreamStatus] = {
    "stop": StreamStatus.COMPLETED,
    "length": StreamStatus.INCOMPLETE,
    "content_filter": StreamStatus.INCOMPLETE,
    "timeout": StreamStatus.INCOMPLETE,
    "cancelled": StreamStatus.CANCELLED,
}
_WORST_FIRST = (StreamStatus.CANCELLED, StreamStatus.INCOMPLETE, StreamStatus.COMPLETED)


def status_of(reasons: set[FinishReason]) -> StreamStatus:
    """The status of a stream whose choices ended for these reasons: the least complete of theirs."""
    statuses = {_STATUS_OF_REASON[reason] for reason in reasons}
    return next((status for status in _WORST_FIRST if status in statuses), StreamStatus.FAILED)


class Lifecycle:
    """The state machine of one stream: running, then one terminal status."""

    __slots__ = ("_status",)

    def __init__(self) -> None:
        self._status = StreamStatus.RUNNING

    @property
    def status(self) -> StreamStatus:
        """Where the stream is."""
        return self._status

    @property
    def has_ended(self) -> bool:
        """Whether the status is terminal."""
        return self._status is not StreamStatus.RUNNING

    def end(self, status: StreamStatus) -> None:
        """Enter a terminal status.

        Raises:
            EngineError: the stream has ended already, or `status` is not terminal.
        """
        if self.has_ended or status is StreamStatus.RUNNING:
            raise EngineError(f"A stream that is {self._status} cannot become {status}.")
        self._status = status
