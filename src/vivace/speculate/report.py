"""What speculation has done so far, as one value."""

from dataclasses import dataclass, field

from vivace.speculate.text_kind import TextKind


@dataclass(slots=True)
class KindReport:
    """Figures of one kind of text. A stream's turn is one stream in one step.

    Args:
        num_turns: turns whose outcome was seen.
        num_tokens: tokens they brought.
        num_drafted: drafts verified in them.
        num_accepted: drafts that stood.
        tried_at: how often a draft stood at each position's turn: drafts verified whose forerunners all stood.
        accepted_at: how many of those stood.
        cost: what the turns cost, in plain turns: each step's relative cost shared by its streams.
    """

    num_turns: int = 0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    tried_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    cost: float = 0.0

    @property
    def speedup(self) -> float:
        """Tokens a turn over its cost: against plain decoding, as the measured costs have it; 1 without any turn."""
        return self.num_tokens / self.cost if self.cost else 1.0

    def note(self, num_drafts: int, num_tokens: int, cost: float) -> None:
        """A turn with so many drafts brought so many tokens."""
        num_accepted = num_tokens - 1
        self.num_turns += 1
        self.num_tokens += num_tokens
        self.num_drafted += num_drafts
        self.num_accepted += num_accepted
        self.cost += cost
        while len(self.tried_at) < num_drafts:
            self.tried_at.append(0)
            self.accepted_at.append(0)
        for position in range(min(num_drafts, num_accepted + 1)):
            self.tried_at[position] += 1
            self.accepted_at[position] += position < num_accepted


@dataclass(frozen=True, slots=True)
class SpeculationReport:
    """Figures of a server by kind of text."""

    kinds: dict[TextKind, KindReport]
