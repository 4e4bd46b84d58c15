"""What speculation can bring: the chapter's formula beside the expectation that is right.

With k drafts that each stand with probability a once all before them stand, a step brings 1 + a + a^2 + ... + a^k
tokens, because the first rejection ends the run. The chapter (18.1.4) counts 1 + a k, as if drafts after a rejection
still counted, and takes the verifying step to cost as much as a plain one. All costs here are in plain steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vivace.types.errors import ConfigError

MAX_DRAFTS = 64
DRAFT_SPEEDS = (2.0, 4.0, 8.0, 16.0, 32.0)


def chapter_speedup(acceptance: float, num_drafts: int, draft_speed: float) -> float:
    """(1 + a k) / (1 + k / b), chapter 18.1.4; over-counts, see the module."""
    return (1 + acceptance * num_drafts) / (1 + num_drafts / draft_speed)


def expected_tokens(acceptance: float, num_drafts: int) -> float:
    """Tokens that a step with drafts brings: (1 - a^(k+1)) / (1 - a), and k + 1 for a = 1.

    Leviathan et al. (2023), equation 1.
    """
    if acceptance == 1:
        return num_drafts + 1.0
    return float((1 - acceptance ** (num_drafts + 1)) / (1 - acceptance))


def expected_speedup(acceptance: float, num_drafts: int, draft_cost: float, verify_cost: float = 1.0) -> float:
    """Tokens a step over its cost, against a plain step that brings one.

    Args:
        acceptance: a, probability that a draft stands.
        num_drafts: k.
        draft_cost: of one draft, in plain steps; 0 for look-up.
        verify_cost: of a step with k + 1 rows, in plain steps.
    """
    return expected_tokens(acceptance, num_drafts) / (num_drafts * draft_cost + verify_cost)


def break_even_cost(acceptance: float, num_drafts: int, verify_cost: float = 1.0) -> float:
    """The largest cost of a draft at which speculation does not lose; negative when even free drafts lose."""
    return (expected_tokens(acceptance, num_drafts) - verify_cost) / num_drafts


def interpolate(costs: Mapping[int, float], num_rows: int) -> float:
    """Cost of a step of so many rows from measured ones; beyond the last one its last slope goes on."""
    rows = sorted(costs)
    if num_rows <= rows[0] or len(rows) == 1:
        return costs[rows[0]]
    right = next((index for index, row in enumerate(rows) if row >= num_rows), len(rows) - 1)
    low, high = rows[right - 1], rows[right]
    return costs[low] + (costs[high] - costs[low]) * (num_rows - low) / (high - low)


@dataclass(frozen=True, slots=True)
class DraftRow:
    """One draft speed: the best number of drafts up to the limit, and what it brings. `pays`: more than plain."""

    draft_speed: float
    best_drafts: int
    speedup: float

    @property
    def pays(self) -> bool:
        """Whether speculation wins at this speed."""
        return self.speedup > 1


@dataclass(frozen=True, slots=True)
class SpeculationPlan:
    """Answers of the calculator; speed-ups against plain decoding."""

    acceptance: float
    num_drafts: int
    draft_speed: float
    verify_cost: float
    chapter: float
    expected_tokens: float
    expected: float
    break_even_cost: float
    rows: tuple[DraftRow, ...]


def plan_speculation(
    acceptance: float, num_drafts: int, draft_speed: float, step_costs: Mapping[int, float] | None = None
) -> SpeculationPlan:
    """Work out both formulas, the break-even cost of a draft, and the best number of drafts for several draft speeds.

    Args:
        acceptance: a, 0 to 1.
        num_drafts: k, 1 to 64.
        draft_speed: b, how many times faster a draft token is than a plain step; infinite for look-up.
        step_costs: time of a step by its rows, in any unit, with an entry for 1; None: all steps cost the same, as the
            chapter has it.

    Raises:
        ConfigError: a number out of range, or costs that are not positive or have none for one row.
    """
    if not 0 <= acceptance <= 1:
        raise ConfigError(f"The acceptance is {acceptance}.", "Give a probability from 0 to 1.")
    if not 1 <= num_drafts <= MAX_DRAFTS:
        raise ConfigError(f"The number of drafts is {num_drafts}.", f"Give 1 to {MAX_DRAFTS}.")
    if not draft_speed > 0:
        raise ConfigError(f"The draft's speed is {draft_speed}.", "Give how many times faster than the model it is.")
    costs = dict(step_costs or {1: 1.0})
    if 1 not in costs or not all(row >= 1 and 0 < cost < float("inf") for row, cost in costs.items()):
        raise ConfigError(f"The step costs are {costs}.", "Give positive times by rows, one of them for 1 row.")
    relative = {row: cost / costs[1] for row, cost in costs.items()}
    verify_cost = interpolate(relative, num_drafts + 1)
    speeds = dict.fromkeys((*DRAFT_SPEEDS, draft_speed, float("inf")))
    return SpeculationPlan(
        acceptance=acceptance,
        num_drafts=num_drafts,
        draft_speed=draft_speed,
        verify_cost=verify_cost,
        chapter=chapter_speedup(acceptance, num_drafts, draft_speed),
        expected_tokens=expected_tokens(acceptance, num_drafts),
        expected=expected_speedup(acceptance, num_drafts, 1 / draft_speed, verify_cost),
        break_even_cost=break_even_cost(acceptance, num_drafts, verify_cost),
        rows=tuple(_best_row(acceptance, speed, num_drafts, relative) for speed in sorted(speeds)),
    )


def _best_row(acceptance: float, speed: float, most: int, costs: Mapping[int, float]) -> DraftRow:
    options = [(expected_speedup(acceptance, k, 1 / speed, interpolate(costs, k + 1)), -k) for k in range(1, most + 1)]
    speedup, negative_k = max(options)
    return DraftRow(speed, -negative_k, speedup)
