"""What drafts did, as one value."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpeculationUsage:
    """What drafts did for one answer, or for several together.

    Args:
        num_turns: steps in which it got tokens, its first token left out.
        num_tokens: tokens these brought.
        num_drafted: drafts that were verified.
        num_accepted: drafts that stood.
        tried_at: by position, drafts that were verified once all before them had stood.
        accepted_at: by position, how many of those stood.
        drafts_over_time: mean drafts of a turn, one figure for each 50 tokens.
        cost: of its turns, in plain turns, drafting included.
    """

    num_turns: int = 0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    tried_at: tuple[int, ...] = ()
    accepted_at: tuple[int, ...] = ()
    drafts_over_time: tuple[float, ...] = ()
    cost: float = 0.0

    @property
    def speedup(self) -> float:
        """Tokens a turn over its cost: against plain decoding, as the measured costs have it; 1 without any turn."""
        return self.num_tokens / self.cost if self.cost else 1.0

    def __add__(self, other: "SpeculationUsage") -> "SpeculationUsage":
        """Both together; of `drafts_over_time` the longer one's is kept."""
        return SpeculationUsage(
            self.num_turns + other.num_turns,
            self.num_tokens + other.num_tokens,
            self.num_drafted + other.num_drafted,
            self.num_accepted + other.num_accepted,
            _sum(self.tried_at, other.tried_at),
            _sum(self.accepted_at, other.accepted_at),
            max(self.drafts_over_time, other.drafts_over_time, key=len),
            self.cost + other.cost,
        )


def together(parts: Iterable[SpeculationUsage | None]) -> SpeculationUsage | None:
    """The sum of those that are there; None of none."""
    total: SpeculationUsage | None = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total


def _sum(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    return (*(x + y for x, y in zip(longer, shorter, strict=False)), *longer[len(shorter) :])
