"""Steps are timed on blocks and rows that an executor has."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.fake_executor import FakeExecutor
from vivace.speculate.costs import StepTimes
from vivace.speculate.measure_costs import START_ROWS, measure_at_start, measure_step_costs
from vivace.types.errors import ConfigError
from vivace.types.step import ForwardBatch


def test_each_row_count_is_timed_in_turns() -> None:
    executor = FakeExecutor(num_blocks=4)
    costs = measure_step_costs(executor, (1, 3, 9), context=20, repeats=2)
    assert list(costs) == [1, 3, 9] and min(costs.values()) >= 0
    assert executor.batch_sizes == [20, *[1, 3, 9] * 3]


def test_an_executor_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError):
        measure_step_costs(FakeExecutor(num_blocks=1), (1, 9), context=20)


def test_at_the_start_only_what_fits_is_timed() -> None:
    assert list(measure_at_start(FakeExecutor(num_blocks=20)).ms) == list(START_ROWS)
    assert list(measure_at_start(FakeExecutor(num_blocks=1)).ms) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert measure_at_start(FakeExecutor(num_blocks=1, max_rows=1)) == StepTimes()


def test_what_a_position_more_costs_is_told_from_two_contexts() -> None:
    """A clock that each forward moves on by its rows and the positions that they attend to."""
    now_ns = 0

    class Timed(FakeExecutor):
        def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
            nonlocal now_ns
            now_ns += 1_000_000 * len(batch.positions) + 1_000 * int(batch.positions[0]) * len(batch.positions)
            return super().forward(batch)

    times = measure_at_start(Timed(num_blocks=40), clock=lambda: now_ns)
    assert times.context == 128 and times.pair_ms == pytest.approx(0.001)
    assert times.ms[4] == pytest.approx(4 * (1 + 0.128))


def test_a_slow_executor_is_not_timed_for_long() -> None:
    ticks = iter(range(0, 10**12, 10**9))
    executor = FakeExecutor(num_blocks=20)
    costs = measure_step_costs(executor, (1, 2, 3, 4), context=16, limit_s=9.5, clock=lambda: next(ticks))
    assert list(costs) == [1, 2, 3] and len(executor.batch_sizes) == 8
