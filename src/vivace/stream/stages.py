"""What stands between the chunks of an answer and its log: a chain of stages, each from chunk to chunks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from vivace.types.answer import AnswerChunk


class Stage(Protocol):
    """Takes chunks in order. It may hold text back until a later chunk; a choice's end lets all of its text go."""

    def feed(self, chunk: AnswerChunk) -> Iterable[AnswerChunk]:
        """Take a chunk; gives what comes out of the stage for it."""
        ...


def through(stages: Sequence[Stage], chunk: AnswerChunk) -> Iterator[AnswerChunk]:
    """A chunk through all stages, in order."""
    if not stages:
        yield chunk
        return
    for out in stages[0].feed(chunk):
        yield from through(stages[1:], out)
