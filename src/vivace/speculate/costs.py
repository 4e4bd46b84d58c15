"""What a step costs by its number of rows, as measured while serving: the shape of the curve, not its height.

Load and clock move all steps together, so each duration is read against the steps just before it: one figure follows
the height quickly, the ratios between row counts are learned slowly. Only ratios decide about drafts. What attention
takes grows with rows and context together and is kept apart: a row more costs the more, the longer the texts are.
"""

import bisect
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

HEIGHT_RATE = 0.25
NUM_KEPT = 9  # ratios kept for each row count; their median counts
NUM_ASSUMED = 4  # of them, for a step that was timed before serving
OUTLIER = 3.0  # a step so many times off says nothing about its rows
STEADY_EVERY = 16  # steps between two looks at the scale of what was learned
LATELY = 64  # steps in which a row count was seen that tells the scale
PRIOR_SLOPE = 0.25  # what a row more is taken to cost before it was measured, in plain steps


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Steps that were timed before serving.

    Args:
        ms: milliseconds by rows.
        context: positions before the rows.
        pair_ms: milliseconds that a row takes longer for each position more before it.
    """

    ms: dict[int, float] = field(default_factory=dict)
    context: int = 0
    pair_ms: float = 0.0


class StepCosts:
    """Relative durations at one context; `of` may be compared with one another and mean nothing else."""

    def __init__(self) -> None:
        self._height_ms = 0.0
        self._ratios: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        self._rows: list[int] = []
        self._noted_at: dict[int, int] = {}
        self._assumed: dict[int, float] = {}
        self._pair = 0.0
        self._context = 0.0
        self.num_steps = 0

    def assume(self, times: StepTimes) -> None:
        """Begin with steps that were timed before serving; each counts as `NUM_ASSUMED` sights."""
        costs_ms: Mapping[int, float] = times.ms
        if not costs_ms:
            return
        self._height_ms = costs_ms[min(costs_ms)]
        self._pair = times.pair_ms / self._height_ms
        for num_rows, elapsed_ms in costs_ms.items():
            ratio = elapsed_ms / self._height_ms - self._pair * num_rows * times.context
            if num_rows not in self._ratios:
                bisect.insort(self._rows, num_rows)
            self._ratios[num_rows] = deque((ratio,) * NUM_ASSUMED, maxlen=NUM_KEPT)
            self._median[num_rows] = ratio
        self._assumed = dict(self._median)

    def look_at(self, context: float) -> None:
        """From now on `of` is about rows that attend to so many positions each."""
        self._context = context

    def note(self, num_rows: int, elapsed_ms: float) -> None:
        """A step of so many rows took so long; a clock that stood still says nothing."""
        if elapsed_ms <= 0:
            return
        self.num_steps += 1
        expected = self.of(num_rows)
        if self._height_ms == 0:
            self._height_ms = elapsed_ms / expected
        ratio = elapsed_ms / self._height_ms
        self._noted_at[num_rows] = self.num_steps
        if 1 / OUTLIER < ratio / expected < OUTLIER:
            attention = self._pair * num_rows * self._context
            self._learn(num_rows, ratio - attention, expected - attention)
        bounded = min(max(elapsed_ms / expected, self._height_ms / OUTLIER), self._height_ms * OUTLIER)
        self._height_ms += HEIGHT_RATE * (bounded - self._height_ms)
        if self.num_steps % STEADY_EVERY == 0:
            self._steady()

    def of(self, num_rows: int) -> float:
        """Relative cost of a step; between measured row counts a straight line, beyond them the prior slope."""
        return self._without_attention(num_rows) + self._pair * num_rows * self._context

    def _without_attention(self, num_rows: int) -> float:
        known = self._median.get(num_rows)
        if known is not None:
            return known
        place = bisect.bisect_left(self._rows, num_rows)
        if place == 0:
            if not self._rows:
                return 1 + PRIOR_SLOPE * (num_rows - 1)
            first = self._rows[0]
            return self._median[first] * (1 + PRIOR_SLOPE * (num_rows - 1)) / (1 + PRIOR_SLOPE * (first - 1))
        low = self._rows[place - 1]
        if place == len(self._rows):
            return self._median[low] + self._slope() * (num_rows - low)
        high = self._rows[place]
        share = (num_rows - low) / (high - low)
        return self._median[low] * (1 - share) + self._median[high] * share

    def milliseconds(self, num_rows: int) -> float:
        """What a step of so many rows takes at the height of now."""
        return self.of(num_rows) * self._height_ms

    def age(self, num_rows: int) -> int:
        """Steps since one of so many rows was measured; since the first step if none was."""
        return self.num_steps - self._noted_at.get(num_rows, 0)

    def _learn(self, num_rows: int, ratio: float, expected: float) -> None:
        if num_rows not in self._ratios:
            bisect.insort(self._rows, num_rows)
            self._ratios[num_rows] = deque((expected,), maxlen=NUM_KEPT)  # the first sight of a count counts half
        self._ratios[num_rows].append(ratio)
        ratios = sorted(self._ratios[num_rows])
        self._median[num_rows] = (ratios[len(ratios) // 2] + ratios[(len(ratios) - 1) // 2]) / 2

    def _steady(self) -> None:
        """Hold the scale of the ratios to that of the start, by the row counts that were seen lately.

        Only the product of height and ratio is seen, and late steps pull the height up more than early ones pull it
        down. Without this the ratios in use would sink, and those out of use would seem dearer and dearer.
        """
        lately = [rows for rows, at in self._noted_at.items() if rows in self._assumed and self.num_steps - at < LATELY]
        if not lately:
            return
        shifts = [math.log(self._median[rows] / self._assumed[rows]) for rows in lately]
        scale = math.exp(sum(shifts) / len(shifts))
        self._height_ms *= scale
        for rows, at in self._noted_at.items():
            if self.num_steps - at < LATELY and rows in self._ratios:
                self._ratios[rows] = deque((ratio / scale for ratio in self._ratios[rows]), maxlen=NUM_KEPT)
                self._median[rows] /= scale

    def _slope(self) -> float:
        """Cost of a row beyond the most that was measured: as between the ends of what was measured."""
        if len(self._rows) == 1:
            first = self._rows[0]
            return self._median[first] * PRIOR_SLOPE / (1 + PRIOR_SLOPE * (first - 1))
        first, last = self._rows[0], self._rows[-1]
        return max(0.0, (self._median[last] - self._median[first]) / (last - first))
