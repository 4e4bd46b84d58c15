"""What a proposer is: something that follows one sequence and guesses how it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

EVIDENCE_FROM = (1, 2, 3, 5, 9)
"""Matched tokens from which evidence 0, 1, 2, 3 and 4 begin."""
MODEL_EVIDENCE = len(EVIDENCE_FROM)
"""The class of evidence of what a model guesses."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Guessed tokens, and how much speaks for them: 0 (little) to MODEL_EVIDENCE."""

    tokens: tuple[int, ...]
    evidence: int


def evidence_of(num_matched: int) -> int:
    """The class of evidence of a match of so many tokens (at least EVIDENCE_FROM[0])."""
    return sum(num_matched >= least for least in EVIDENCE_FROM) - 1


class Follower(Protocol):
    """A proposer at work on one sequence."""

    def extend(self, tokens: Sequence[int]) -> None:
        """The sequence goes on with these tokens; prompt and answer alike."""
        ...

    def propose(self, count: int) -> Proposal | None:
        """Guess at most `count` tokens that follow all tokens so far; None without a guess."""
        ...

    def finish(self, answer: Sequence[int]) -> None:
        """The sequence has ended with this answer."""
        ...


class Proposer(Protocol):
    """A way to guess, shared by all sequences of an engine."""

    def follow(self, tenant: str) -> Follower:
        """Begin with a new sequence, which may learn from sequences of the same tenant only."""
        ...
