"""Drafts: tokens that are guessed before the model says them, so that one step can confirm several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivace.types.grammar import TokenMask
from vivace.types.request import SamplingParams
from vivace.types.speculation import SpeculationUsage

GREEDY = SamplingParams(temperature=0)


@dataclass(frozen=True, slots=True)
class DraftPlace:
    """A stream that gets its next token in the step being planned, and may be given drafts beside it.

    Args:
        sequence_id: unique in the engine's life.
        tokens: all known tokens, int32 (n,); a view, right only during the call it is handed to.
        num_prompt: how many of them are the prompt.
        max_drafts: most drafts that fit: context, length of the answer and KV memory are counted in; may be 0.
        tenant: whose past answers may be guessed from.
        owner: request id and choice, by which the end of the stream is told.
        block_table: KV blocks of the stream, int32 (num_blocks,), with slots for all its drafts; None: not known.
        sampling: how its tokens are drawn; a draft model draws the same way.
        seed: of its random numbers.
        grammar: what its answer has to look like; a draft that it refuses cannot stand.
    """

    sequence_id: int
    tokens: NDArray[np.int32]
    num_prompt: int
    max_drafts: int
    tenant: str = ""
    owner: tuple[str, int] = ("", 0)
    block_table: NDArray[np.int32] | None = None
    sampling: SamplingParams = GREEDY
    seed: int = 0
    grammar: TokenMask | None = None


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A step of streams and drafts alone, without any prompt, as it turned out.

    Args:
        num_rows: streams and drafts.
        num_streams: rows that plain decoding would have had.
        num_pairs: sum over rows of the positions each attends to.
        num_tokens: that were drawn.
        elapsed_ms: of planning, running and committing it.
    """

    num_rows: int
    num_streams: int
    num_pairs: float
    num_tokens: int
    elapsed_ms: float


class Speculator(Protocol):
    """Guesses for the scheduler. What it returns changes the speed of an engine and never its text."""

    @property
    def max_drafts(self) -> int:
        """Most drafts of one sequence in one step."""
        ...

    def refuses(self, num_streams: int) -> bool:
        """Whether so many streams get no drafts at all, whatever their tokens are; may be asked at any time."""
        ...

    def rests(self, num_streams: int) -> bool:
        """Whether this step of so many streams may go by without being asked; asked once a step that has some."""
        ...

    def propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> Sequence[tuple[int, ...]]:
        """Drafts for each place, in order.

        Args:
            places: every stream of the step, those without room for drafts too.
            num_rows: rows that the step has without drafts.
            budget: most drafts over all places.
        """
        ...

    def note_step(self, step: DecodeStep) -> None:
        """A step of streams and drafts alone has ended."""
        ...

    def end(self, request_id: str, choice: int, num_generated: int) -> SpeculationUsage | None:
        """An answer has ended with so many tokens; what drafts did for it. None where it never had a turn."""
        ...

    def abandon(self, request_id: str) -> None:
        """A request has failed: nothing is to be learned from its answers."""
        ...

    def report(self) -> SpeculationUsage:
        """All answers so far together; may be read from any thread."""
        ...

    def close(self) -> None:
        """Free what it holds beside the target's memory."""
        ...
