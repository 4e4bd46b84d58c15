"""What a stream leaves behind so that it can go on after the process has died. Nouns and the protocol; no storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent
from vivace.types.events import FinishReason


@dataclass(slots=True)
class Progress:
    """How much of one choice is in the log: all that is needed to go on from there.

    Args:
        num_chars: of its text.
        token_ids: the tokens that text was made of; they may be ahead of it by what is held back.
        finish_reason: how it ended; None: it has not, or its end is not in the log.
        attempt: how often it had been taken back when the last of these tokens was drawn.
        num_saved: how many of the tokens a journal has; its own to count.
    """

    num_chars: int = 0
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    attempt: int = 0
    num_saved: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stream as it was accepted.

    Args:
        stream_id: unguessable.
        owner: hash of the API key that asked.
        kind: which front end's writer made the events, such as "chat".
        request: that front end's own bytes: the whole request, with its seed fixed, and how its answer is written.
        retain_s: how long it wants to be readable after its end; None: as its keeper likes.
    """

    stream_id: str
    owner: str
    kind: str
    request: bytes
    retain_s: float | None = None


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
        """Events were written, all or none of them; no reader has seen them yet. Counts the tokens it saves."""
        ...

    def end(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress], status: StreamStatus
    ) -> None:
        """The last events were written and the stream has ended."""
        ...

    def forget(self, stream_id: str) -> None:
        """Nobody may read the stream any more."""
        ...

    def release(self, stream_id: str) -> None:
        """This process keeps the stream no longer; nor does a journal that is its alone."""
        ...


class StreamStore(Journal, Protocol):
    """A journal that gives back what it keeps."""

    def load(self) -> Sequence[SavedRun]:
        """The streams that are this process's own from before its start, in no order.

        Raises:
            StorageError: they cannot be read.
        """
        ...

    def close(self) -> None:
        """Nothing is told or asked any more."""
        ...


def note_saved(progress: Mapping[int, Progress]) -> None:
    """All tokens are in the journal now."""
    for known in progress.values():
        known.num_saved = len(known.token_ids)


class NoJournal:
    """A journal that keeps nothing: streams end with the process."""

    def begin(self, record: RunRecord) -> None:
        """Keep nothing."""

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        """Keep nothing."""

    def end(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress], status: StreamStatus
    ) -> None:
        """Keep nothing."""

    def forget(self, stream_id: str) -> None:
        """Keep nothing."""

    def release(self, stream_id: str) -> None:
        """Keep nothing."""
