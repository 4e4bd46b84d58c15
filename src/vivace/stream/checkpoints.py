"""Places of an answer that one can go back to: after each sentence, named s1, s2 and so on, and after single tokens.

The names depend on the text alone, so they are the same in every reading of it, after a restart too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vivace.stream.flush import num_settled, sentence_ends

CONTEXT_CHARS = 32
"""What stands before a full stop and tells that it ends no sentence ("Prof.") is shorter."""
_MAY_COUNT = re.compile(r"[\s\d]*")  # a line that begins with a number: "12." ends nothing


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
    """Finds the checkpoints of one text that arrives in pieces. No character is looked at twice, or kept for long."""

    __slots__ = ("_num_found", "_num_passed", "_num_scanned", "_tail")

    def __init__(self) -> None:
        self._tail, self._num_passed, self._num_scanned, self._num_found = "", 0, 0, 0

    def feed(self, text: str) -> list[Checkpoint]:
        """Take more text; the checkpoints that have become certain."""
        self._tail += text
        found = []
        while end := next(iter(sentence_ends(self._tail, self._num_scanned)), 0):
            self._num_passed += end
            self._num_found += 1
            self._tail, self._num_scanned = self._tail[end:], 0
            found.append(Checkpoint(f"s{self._num_found}", self._num_passed))
        self._num_scanned = num_settled(self._tail)
        self._forget()
        return found

    def _forget(self) -> None:
        """Let go of what no later end depends on; one letter in its place tells that something was there."""
        num_gone = self._num_scanned - CONTEXT_CHARS
        if num_gone > CONTEXT_CHARS and not _MAY_COUNT.fullmatch(self._tail, 0, num_gone):
            self._tail = "x" + self._tail[num_gone:]
            self._num_passed += num_gone - 1
            self._num_scanned -= num_gone - 1


def last_place(places: Sequence[Place], offset: int) -> Place:
    """The last place at or before an offset; the beginning is always one."""
    return max((place for place in places if place.num_chars <= offset), key=lambda place: place.num_tokens)
