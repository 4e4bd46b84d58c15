"""What a stream leaves behind so that it can go on after the process has died. Nouns and the protocol; no storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent


@dataclass(slots=True)
class Progress:
    """How much of one choice is in the log: characters and tokens, and whether its end is."""

    num_chars: int = 0
    num_tokens: int = 0
    has_finished: bool = False


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stream as it was accepted.

    Args:
        stream_id: unguessable.
        owner: hash of the API key that asked.
        kind: which front end's writer made the events, such as "chat".
        request: that front end's own bytes: the whole request, with its seed fixed, and how its answer is written.
    """

    stream_id: str
    owner: str
    kind: str
    request: bytes


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A stream as it is found after a restart."""

    record: RunRecord
    status: StreamStatus
    events: tuple[LogEvent, ...] = ()
    progress: Mapping[int, Progress] = field(default_factory=dict)


class Journal(Protocol):
    """Keeps streams across a restart. Every method returns when what it was told survives the process."""

    def begin(self, record: RunRecord) -> None:
        """A stream was accepted."""
        ...

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        """Events were written, all or none of them; no reader has seen them yet."""
        ...

    def end(self, stream_id: str, events: Sequence[LogEvent], status: StreamStatus) -> None:
        """The last events were written and the stream has ended."""
        ...

    def forget(self, stream_id: str) -> None:
        """Nobody may read the stream any more."""
        ...


class NoJournal:
    """A journal that keeps nothing: streams end with the process."""

    def begin(self, record: RunRecord) -> None:
        """Keep nothing."""

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        """Keep nothing."""

    def end(self, stream_id: str, events: Sequence[LogEvent], status: StreamStatus) -> None:
        """Keep nothing."""

    def forget(self, stream_id: str) -> None:
        """Keep nothing."""
