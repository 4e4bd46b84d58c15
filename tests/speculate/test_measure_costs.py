"""Steps are timed on blocks and rows that an executor has."""

import pytest

from engine.fake_executor import FakeExecutor
from vivace.speculate.measure_costs import measure_step_costs
from vivace.types.errors import ConfigError


def test_each_row_count_is_timed_in_turns() -> None:
    executor = FakeExecutor(num_blocks=4)
    costs = measure_step_costs(executor, (1, 3, 9), context=20, repeats=2)
    assert list(costs) == [1, 3, 9] and min(costs.values()) >= 0
    assert executor.batch_sizes == [20, *[1, 3, 9] * 4]


def test_an_executor_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError):
        measure_step_costs(FakeExecutor(num_blocks=1), (1, 9), context=20)
