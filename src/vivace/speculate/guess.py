"""What one stream could verify in a step, and who guessed it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vivace.speculate.acceptance import Acceptance, Watch
from vivace.speculate.policy import WindowLength
from vivace.speculate.proposal import Follower
from vivace.speculate.tally import TurnTally
from vivace.speculate.text_kind import DEFAULT_KIND, TextKind
from vivace.types.draft import DraftPlace


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens, or a promise of so many, with the probability that those up to each position all stand."""

    tokens: tuple[int, ...] = ()
    cumulative: tuple[float, ...] = ()


@dataclass(slots=True)
class Stream:
    """One followed sequence. `num_drafts`, `expected` and `turn_cost` are of its last turn; None before the first."""

    followers: dict[str, Follower]
    watches: dict[str, Watch]
    acceptance: Acceptance
    num_prompt: int
    kind: TextKind = DEFAULT_KIND
    num_until_kind: int = 0
    tokens: list[int] = field(default_factory=list)
    window: WindowLength = field(default_factory=WindowLength)
    tally: TurnTally = field(default_factory=TurnTally)
    num_drafts: int | None = None
    expected: float = 0.0
    turn_cost: float = 1.0
    is_beside_prompt: bool = False  # its last turn, which had so many streams:
    company: int = 1


@dataclass(frozen=True, slots=True)
class StepView:
    """What is known of the step being planned: one entry a stream in `streams`, `places` and `guesses`.

    Args:
        streams: all of the step.
        places: where their drafts would stand.
        guesses: what look-up found for them.
        num_rows: rows without drafts.
        budget: most drafts in all.
        most: what drafts and guesses may cost at most, in the unit of step costs.
    """

    streams: Sequence[Stream]
    places: Sequence[DraftPlace]
    guesses: Sequence[Guess]
    num_rows: int
    budget: int
    most: float
