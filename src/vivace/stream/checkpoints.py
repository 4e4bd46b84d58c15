"""Places of an answer that one can go back to: after each sentence, named s1, s2 and so on, and after single tokens.

The names depend on the text alone, so they are the same in every reading of it, after a restart too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vivace.stream.flush import sentence_ends


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of a sentence: `offset` characters stand before it."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Place:
    """After `num_tokens` tokens exactly `num_chars` characters are told, and nothing is held back."""

    num_tokens: int
    num_chars: int


class SentenceMarks:
    """Finds the checkpoints of one text that arrives in pieces."""

    __slots__ = ("_num_found", "_num_passed", "_tail")

    def __init__(self) -> None:
        self._tail, self._num_passed, self._num_found = "", 0, 0

    def feed(self, text: str) -> list[Checkpoint]:
        """Take more text; the checkpoints that have become certain."""
        self._tail += text
        found = []
        while end := next(iter(sentence_ends(self._tail)), 0):
            self._num_passed += end
            self._num_found += 1
            self._tail = self._tail[end:]
            found.append(Checkpoint(f"s{self._num_found}", self._num_passed))
        return found


def last_place(places: Sequence[Place], offset: int) -> Place:
    """The last place at or before an offset; the beginning is always one."""
    return max((place for place in places if place.num_chars <= offset), key=lambda place: place.num_tokens)
