"""What a run is given to do: the chunks of an answer, how they are written, and what its terminal event tells."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from vivace.stream.stages import Stage
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import VivaceError


class Writer(Protocol):
    """Turns chunks into the payloads of one front end's wire format."""

    def opening(self) -> Iterable[bytes]:
        """What stands before the first chunk."""
        ...

    def piece(self, chunk: AnswerChunk) -> Iterable[bytes]:
        """A chunk."""
        ...

    def closing(self, usage: Usage | None) -> Iterable[bytes]:
        """What stands after the last chunk of an answer that did not fail."""
        ...

    def failure(self, error: VivaceError) -> bytes:
        """An error, told in band."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about an answer that is no part of its text: an event for readers that asked for such events.

    Args:
        name: of the event.
        told: its payload, to be written as JSON.
    """

    name: str
    told: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Work:
    """An answer in the making.

    Args:
        chunks: its pieces, in order; starts the work when first asked, cancels it when closed.
        stop: asks for an early end, after which `chunks` still yields the closing pieces.
        writer: of the front end that asked.
        stages: what the chunks go through before they are written: safety, then where to cut.
        num_choices: of the request.
        num_prompt: tokens of its prompt.
        note_reader: takes how many seconds of text wait for the reader, and whether nothing else does.
        opens_at_once: write what stands before the first chunk when the work begins: a reader learns the stream's name,
            and an error before the first chunk is told in band.
    """

    chunks: AsyncGenerator[AnswerChunk | Notice, None]
    stop: Callable[[], None]
    writer: Writer
    stages: Sequence[Stage] = ()
    num_choices: int = 1
    num_prompt: int = 0
    opens_at_once: bool = False
    note_reader: Callable[[float, bool], None] = lambda lead_s, is_all: None


class RunEnd(msgspec.Struct, kw_only=True):
    """Payload of the terminal event. `usage` counts what there is, however the stream ended."""

    status: str
    reasons: list[str]
    usage: dict[str, int]
    error_code: str | None = None
    continue_token: str | None = None
