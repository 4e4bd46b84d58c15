"""Checks that a row answers as a language model does, so that no speed is quoted of nonsense."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.cli.compare.child_process import PeerProcess

QUESTION = "What is the capital of France? Answer in one sentence."
EXPECTED = "Paris"
ANSWER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class GreedyAnswer:
    """A row's greedy answer; `sane`: it says what it should."""

    text: str
    sane: bool


def ask(row: PeerProcess, question_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> GreedyAnswer:
    """The greedy answer of a row to QUESTION.

    Raises:
        PeerError: the engine failed.
    """
    answer = row.generate([question_ids], ANSWER_TOKENS)
    text = decode(answer.ids[0]) if answer.ids[0] else answer.texts[0]
    return GreedyAnswer(text, EXPECTED in text)
