"""What a step costs, learned from the steps that ran: ms = fixed + per_row x rows + per_pair x (row, position) pairs.

Least squares with forgetting over the last few hundred steps, so that a machine that gets busier is noticed. A step
that took far longer than the model says (the system had something else to do) counts as `OUTLIER` times the model at
most.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vivace.types.step import SequenceShare

MEMORY_STEPS = 256
ENOUGH_STEPS = 8
FIT_EVERY = 8
OUTLIER = 4.0
MANY_ROWS = 1 << 30
PAIRS_UNIT = 1e-3  # pairs are counted in thousands, so that the sums have like sizes


@dataclass(frozen=True, slots=True)
class StepCost:
    """A fitted model in milliseconds; all three are at least 0. A pair is a row and a position that it attends to."""

    fixed_ms: float
    per_row_ms: float
    per_pair_ms: float

    def step_ms(self, num_rows: int, num_pairs: float) -> float:
        """Milliseconds of a step."""
        return self.fixed_ms + self.per_row_ms * num_rows + self.per_pair_ms * num_pairs

    def prompt_rows(self, start: int, budget_ms: float) -> int:
        """Rows of one sequence, from position `start` on, that fit into a budget beside other work."""
        linear = self.per_row_ms + self.per_pair_ms * start
        if budget_ms <= 0:
            return 0
        # the positive root of per_pair / 2 n^2 + linear n = budget, in the form that bears a factor of 0
        slope = linear + (linear * linear + 2 * self.per_pair_ms * budget_ms) ** 0.5
        return int(min(2 * budget_ms / slope, MANY_ROWS)) if slope > 0 else MANY_ROWS


def num_pairs(shares: Iterable[SequenceShare]) -> float:
    """(row, position) pairs that the attention of a step reads."""
    return sum(share.count * (share.start + (share.count + 1) / 2) for share in shares)


class StepCostModel:
    """Learns from steps; `cost` is None until there were enough of them."""

    def __init__(self) -> None:
        self._sums = [0.0] * len(_PRODUCTS)  # plain floats: numpy takes ten times as long over so few
        self._moments = [0.0] * 3
        self._num_steps = 0
        self._absolute_error_ms = 0.0
        self._total_ms = 0.0
        self.cost: StepCost | None = None

    @property
    def relative_error(self) -> float | None:
        """Mean absolute error of predictions made before their step, over the mean step, recent steps weighing more."""
        return self._absolute_error_ms / self._total_ms if self._total_ms else None

    def observe(self, num_rows: int, pairs: float, elapsed_ms: float) -> None:
        """A step has taken so long.

        Args:
            num_rows: rows of the step.
            pairs: see `num_pairs`.
            elapsed_ms: measured.
        """
        if self.cost is not None:
            predicted = self.cost.step_ms(num_rows, pairs)
            self._absolute_error_ms = 0.99 * self._absolute_error_ms + abs(predicted - elapsed_ms)
            self._total_ms = 0.99 * self._total_ms + elapsed_ms
            elapsed_ms = min(elapsed_ms, OUTLIER * predicted) if predicted > 0 else elapsed_ms
        row = (1.0, float(num_rows), pairs * PAIRS_UNIT)
        weight = 1.0 / max(elapsed_ms, 1e-3)  # relative errors count, or long prompts alone would decide
        keep = 1 - 1 / MEMORY_STEPS
        self._sums = [
            keep * total + weight * row[i] * row[j] for total, (i, j) in zip(self._sums, _PRODUCTS, strict=True)
        ]
        self._moments = [
            keep * total + weight * elapsed_ms * value for total, value in zip(self._moments, row, strict=True)
        ]
        self._num_steps += 1
        if self._num_steps >= ENOUGH_STEPS and self._num_steps % FIT_EVERY == 0:
            self._fit()

    def _fit(self) -> None:
        """Solve with a little ridge; columns whose factor comes out negative are left out."""
        normal = dict(zip(_PRODUCTS, self._sums, strict=True))
        kept = [0, 1, 2]
        solution: dict[int, float] = {}
        while kept:
            ridge = 1e-9 * sum(normal[i, i] for i in kept)
            matrix = [[normal[min(i, j), max(i, j)] + ridge * (i == j) for j in kept] for i in kept]
            solution = dict(zip(kept, _solve(matrix, [self._moments[i] for i in kept]), strict=True))
            lowest = min(kept, key=lambda column: solution[column])
            if solution[lowest] >= 0:
                break
            kept.remove(lowest)
            del solution[lowest]
        self.cost = StepCost(solution.get(0, 0.0), solution.get(1, 0.0), solution.get(2, 0.0) * PAIRS_UNIT)


_PRODUCTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a small symmetric positive definite system by elimination."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][k] * solution[k] for k in range(i + 1, size))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution
