"""Checks that a row answers as a language model does, so that no speed is quoted of nonsense."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.cli.compare.child_process import PeerProcess

QUESTION = "What is the capital of France? Answer in one sentence."
EXPECTED = "Paris"
ANSWER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class GreedyAnswer:
    """A row's greedy answer.

    Args:
        text: what it says.
        sane: it says what it should; None of a model with random weights, which has nothing to say.
        ids: its tokens; empty where the engine gives text alone.
    """

    text: str
    sane: bool | None
    ids: tuple[int, ...] = ()

    def num_agreeing(self, other: "GreedyAnswer") -> int | None:
        """Leading tokens that two answers share; None where an engine gives text alone."""
        if not self.ids or not other.ids:
            return None
        pairs = list(zip(self.ids, other.ids, strict=False))
        return next((i for i, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))


def ask(
    row: PeerProcess, question_ids: Sequence[int], decode: Callable[[Sequence[int]], str], *, can_speak: bool = True
) -> GreedyAnswer:
    """The greedy answer of a row to QUESTION.

    Args:
        row: a running peer.
        question_ids: QUESTION as the model's chat template has it.
        decode: ids to text.
        can_speak: False of random weights.

    Raises:
        PeerError: the engine failed.
    """
    answer = row.generate([question_ids], ANSWER_TOKENS)
    text = decode(answer.ids[0]) if answer.ids[0] else answer.texts[0]
    return GreedyAnswer(text, EXPECTED in text if can_speak else None, tuple(answer.ids[0]))
