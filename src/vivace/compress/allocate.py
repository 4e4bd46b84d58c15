"""Which format each part gets under a budget of bytes, and of milliseconds: the multiple-choice knapsack.

Bytes alone: dynamic programming over bytes in units of their greatest common divisor, which is exact; with more than
MOST_UNITS of them sizes are rounded up to coarser units, so that the budget still holds, and `lower_bound` says how
far from the best the choice can be at most (the linear relaxation, by its Lagrangian). With milliseconds as well: an
integer programme, given to HiGHS through scipy (extra `compress`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vivace.types.errors import ConfigError

MOST_UNITS = 50_000


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a part: what it costs in bytes, in quality (KL divergence in nats) and in time a token."""

    label: str
    num_bytes: int
    loss: float
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Allocation:
    """The chosen option of each part, their sums, and a bound that no choice within the budget can go below."""

    chosen: tuple[Option, ...]
    num_bytes: int
    loss: float
    lower_bound: float

    @property
    def milliseconds(self) -> float:
        """Time a token, as far as the options know theirs."""
        return sum(option.milliseconds for option in self.chosen)


def allocate(parts: Sequence[Sequence[Option]], budget_bytes: int, budget_ms: float | None = None) -> Allocation:
    """Choose one option a part so that the sum of losses is least within the budget.

    Args:
        parts: the options of each part.
        budget_bytes: what all may take.
        budget_ms: what a token may take, or None for no limit.

    Raises:
        ConfigError: even the smallest (or quickest) options do not fit; the message says what they need. Or scipy is
            not there for a budget of milliseconds.
    """
    smallest = [min(option.num_bytes for option in options) for options in parts]
    if sum(smallest) > budget_bytes:
        raise ConfigError(
            f"A budget of {budget_bytes:,} bytes is too small.", f"The smallest layout takes {sum(smallest):,} bytes."
        )
    if budget_ms is not None:
        return _allocate_timed(parts, budget_bytes, budget_ms)
    extra = [[option.num_bytes - least for option in options] for options, least in zip(parts, smallest, strict=True)]
    unit = max(math.gcd(*(size for sizes in extra for size in sizes)), 1)
    room = budget_bytes - sum(smallest)
    unit *= max(1, -(-room // unit // MOST_UNITS))
    room = min(room // unit, sum(max(-(-size // unit) for size in sizes) for sizes in extra))
    picks = _solve(parts, [[-(-size // unit) for size in sizes] for sizes in extra], room)
    chosen = tuple(options[pick] for options, pick in zip(parts, picks, strict=True))
    used = sum(option.num_bytes for option in chosen)
    return Allocation(chosen, used, sum(option.loss for option in chosen), _lower_bound(parts, budget_bytes))


def _allocate_timed(parts: Sequence[Sequence[Option]], budget_bytes: int, budget_ms: float) -> Allocation:
    """The same with a second limit: one 0/1 variable an option, one equation a part, two inequalities."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError:
        raise ConfigError("A limit of milliseconds needs scipy.", "pip install 'vivace[compress]'") from None
    quickest = sum(min(option.milliseconds for option in options) for options in parts)
    if quickest > budget_ms:
        raise ConfigError(f"{budget_ms:g} ms a token is too little.", f"The quickest layout takes {quickest:.3g} ms.")
    flat = [option for options in parts for option in options]
    once = np.zeros((len(parts), len(flat)))
    column = 0
    for row, options in enumerate(parts):
        once[row, column : column + len(options)] = 1
        column += len(options)
    scale = max(option.loss for option in flat) or 1.0  # HiGHS measures its gap absolutely
    found = milp(
        np.array([option.loss / scale for option in flat]),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(np.array([[option.num_bytes / budget_bytes for option in flat]]), -np.inf, 1),
            LinearConstraint(np.array([[option.milliseconds / max(budget_ms, 1e-9) for option in flat]]), -np.inf, 1),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise ConfigError(
            f"No layout keeps to {budget_bytes:,} bytes and {budget_ms:g} ms a token.", "Raise one of the two."
        )
    chosen = tuple(option for option, taken in zip(flat, found.x, strict=True) if taken > 0.5)
    used = sum(option.num_bytes for option in chosen)
    return Allocation(chosen, used, sum(option.loss for option in chosen), float(found.mip_dual_bound) * scale)


def _solve(parts: Sequence[Sequence[Option]], sizes: Sequence[Sequence[int]], room: int) -> list[int]:
    """Index of the option of each part; `sizes` are in units above each part's smallest."""
    best = np.zeros(room + 1)
    picked = np.zeros((len(parts), room + 1), np.int8)
    for number, options in enumerate(parts):
        costs = np.full((len(options), room + 1), np.inf)
        for index, option in enumerate(options):
            size = sizes[number][index]
            if size <= room:
                costs[index, size:] = best[: room + 1 - size] + option.loss
        picked[number] = costs.argmin(axis=0)
        best = costs.min(axis=0)
    picks = [0] * len(parts)
    for number in range(len(parts) - 1, -1, -1):
        picks[number] = int(picked[number, room])
        room -= sizes[number][picks[number]]
    return picks


def _lower_bound(parts: Sequence[Sequence[Option]], budget_bytes: int) -> float:
    """The largest Lagrangian value over prices a byte: what no allocation within the budget can beat."""

    def value(price: float) -> tuple[float, int]:
        picks = [min(options, key=lambda o: o.loss + price * o.num_bytes) for options in parts]
        used = sum(option.num_bytes for option in picks)
        return sum(option.loss + price * option.num_bytes for option in picks) - price * budget_bytes, used

    if value(0.0)[1] <= budget_bytes:
        return value(0.0)[0]
    low, high = 0.0, max(option.loss for options in parts for option in options) + 1e-12
    bound = max(value(low)[0], value(high)[0])
    for _ in range(60):  # the value is concave in the price; its slope is used - budget
        middle = (low + high) / 2
        found, used = value(middle)
        bound = max(bound, found)
        low, high = (middle, high) if used > budget_bytes else (low, middle)
    return bound
