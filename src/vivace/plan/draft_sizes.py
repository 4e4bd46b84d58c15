"""Which size of draft model pays: what a pass of it costs, what it brings, and how often it must be right.

A step of one token reads all weights once, so what it takes is a fixed part and a part for each byte. Both come from
steps that were timed: those of the target, and those of its first layers with its head, which is a smaller model of the
same format on the same machine. Sizes are of all that a pass reads, the head over the target's vocabulary included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vivace.plan.speculate import MAX_DRAFTS, expected_speedup, interpolate
from vivace.types.errors import ConfigError

BISECTIONS = 30  # of an acceptance between 0 and 1


@dataclass(frozen=True, slots=True)
class StepLine:
    """What a step of one row takes by the bytes of weights it reads: `fixed_ms` + `ms_per_byte` x bytes."""

    fixed_ms: float
    ms_per_byte: float

    def ms(self, num_bytes: float) -> float:
        """Of a model that reads so many bytes."""
        return self.fixed_ms + self.ms_per_byte * num_bytes


def fit_line(step_ms: Mapping[int, float]) -> StepLine:
    """The line nearest to steps that were timed (least squares); through nought where it would begin below it.

    Args:
        step_ms: milliseconds of a step of one row by bytes of weights read.

    Raises:
        ConfigError: nothing was timed, or bytes or times that are not positive.
    """
    if not step_ms or not all(size > 0 and 0 < ms < float("inf") for size, ms in step_ms.items()):
        raise ConfigError(f"The timed steps are {dict(step_ms)}.", "Give positive times by positive bytes.")
    mean_size, mean_ms = sum(step_ms) / len(step_ms), sum(step_ms.values()) / len(step_ms)
    spread = sum((size - mean_size) ** 2 for size in step_ms)
    if spread:
        slope = sum((size - mean_size) * (ms - mean_ms) for size, ms in step_ms.items()) / spread
        fixed = mean_ms - slope * mean_size
        if slope > 0 and fixed >= 0:
            return StepLine(fixed, slope)
    return StepLine(0.0, mean_ms / mean_size)


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A draft model that is there or is thought of.

    Args:
        name: to be printed.
        num_bytes: of weights that a pass reads.
        cost: of a pass, in plain steps of the target.
        acceptance: probability that a draft of it stands, 0 to 1.
        is_measured: cost and acceptance are of a model that is there.
    """

    name: str
    num_bytes: int
    cost: float
    acceptance: float
    is_measured: bool = False


@dataclass(frozen=True, slots=True)
class SizeRow:
    """What a draft model brings with the best number of drafts up to the limit.

    `break_even`: the least acceptance at which some number of drafts does not lose; None where even 1 loses.
    """

    draft: DraftModel
    best_drafts: int
    speedup: float
    break_even: float | None

    @property
    def pays(self) -> bool:
        """Whether speculation wins with it."""
        return self.speedup > 1


def rank_sizes(drafts: Sequence[DraftModel], most_drafts: int, step_costs: Mapping[int, float]) -> tuple[SizeRow, ...]:
    """Speed-ups by (1 - a^(k+1)) / (1 - a) over k c_draft + c_verify(k + 1), in the order given.

    Args:
        drafts: candidates.
        most_drafts: of a step, 1 to 64.
        step_costs: time of a step of the target by its rows, in any unit, with an entry for 1.

    Raises:
        ConfigError: a number out of range.
    """
    if not 1 <= most_drafts <= MAX_DRAFTS:
        raise ConfigError(f"The number of drafts is {most_drafts}.", f"Give 1 to {MAX_DRAFTS}.")
    if 1 not in step_costs or not all(rows >= 1 and 0 < cost < float("inf") for rows, cost in step_costs.items()):
        raise ConfigError(
            f"The step costs are {dict(step_costs)}.", "Give positive times by rows, one of them for 1 row."
        )
    for draft in drafts:
        if not (draft.cost > 0 and 0 <= draft.acceptance <= 1):
            raise ConfigError(
                f"The draft {draft.name} costs {draft.cost} steps and {draft.acceptance} of it stand.",
                "Give a positive cost and an acceptance from 0 to 1.",
            )
    relative = {rows: cost / step_costs[1] for rows, cost in step_costs.items()}
    verify = [interpolate(relative, count + 1) for count in range(1, most_drafts + 1)]
    return tuple(_row(draft, verify) for draft in drafts)


def best_of(rows: Sequence[SizeRow]) -> SizeRow | None:
    """The row that brings most; None when none pays."""
    paying = [row for row in rows if row.pays]
    return max(paying, key=lambda row: row.speedup) if paying else None


def _row(draft: DraftModel, verify: Sequence[float]) -> SizeRow:
    speedup, best = _best(draft.acceptance, draft.cost, verify)
    return SizeRow(draft, best, speedup, _break_even(draft.cost, verify))


def _best(acceptance: float, cost: float, verify: Sequence[float]) -> tuple[float, int]:
    """The largest speed-up and its number of drafts, the fewest of equals; `verify` by number of drafts from 1."""
    options = [(expected_speedup(acceptance, count, cost, step), -count) for count, step in enumerate(verify, 1)]
    speedup, negative = max(options)
    return speedup, -negative


def _break_even(cost: float, verify: Sequence[float]) -> float | None:
    low, high = 0.0, 1.0
    if _best(high, cost, verify)[0] < 1:
        return None
    for _ in range(BISECTIONS):  # speed-ups rise with acceptance
        middle = (low + high) / 2
        if _best(middle, cost, verify)[0] < 1:
            low = middle
        else:
            high = middle
    return high
