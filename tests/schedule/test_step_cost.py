"""Step costs are learned, and bound what prompts take of a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedule.simulation import Job, Simulation
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.prompt_budget import LEAST_ROWS, LEAST_SHARE
from vivace.schedule.step_cost import StepCost, StepCostModel, num_pairs
from vivace.types.request import ServiceLevel
from vivace.types.step import SequenceShare


def learned(fixed: float, per_row: float, per_pair: float, noise: float = 0.0, steps: int = 200) -> StepCostModel:
    generator = np.random.default_rng(0)
    model = StepCostModel()
    for _ in range(steps):
        rows = int(generator.integers(1, 200))
        pairs = float(rows * generator.integers(1, 2000))
        exact = fixed + per_row * rows + per_pair * pairs
        model.observe(rows, pairs, exact * (1 + noise * float(generator.standard_normal())))
    return model


@given(st.floats(0.1, 20), st.floats(0.01, 3), st.floats(1e-5, 1e-3))
@settings(max_examples=50, deadline=None)
def test_the_costs_of_a_linear_machine_are_found(fixed: float, per_row: float, per_pair: float) -> None:
    cost = learned(fixed, per_row, per_pair).cost
    assert cost is not None
    assert cost.step_ms(50, 40_000) == pytest.approx(fixed + 50 * per_row + 40_000 * per_pair, rel=0.05)


def test_noise_and_a_few_wild_steps_do_little_harm() -> None:
    model = learned(5, 0.5, 1e-4, noise=0.1)
    for _ in range(3):
        model.observe(10, 1000, 5000.0)
    assert model.cost is not None
    assert model.cost.step_ms(100, 50_000) == pytest.approx(60, rel=0.25)
    assert model.relative_error is not None


def test_a_machine_that_gets_slower_is_noticed() -> None:
    model = learned(1, 0.1, 0)
    for number in range(600):
        model.observe(1 + number % 50, 100, 2 * (1 + 0.1 * (1 + number % 50)))
    assert model.cost is not None
    assert model.cost.step_ms(20, 100) == pytest.approx(6, rel=0.1)


def test_nothing_is_claimed_before_there_were_enough_steps() -> None:
    model = StepCostModel()
    model.observe(1, 1, 1)
    assert model.cost is None and model.relative_error is None


@given(st.floats(0.01, 2), st.floats(0, 1e-3), st.integers(0, 5000), st.floats(0, 500))
def test_rows_that_fit_a_budget_fit_it(per_row: float, per_pair: float, start: int, budget_ms: float) -> None:
    cost = StepCost(1.0, per_row, per_pair)

    def spent(count: int) -> float:
        return per_row * count + per_pair * count * (start + count / 2)

    count = cost.prompt_rows(start, budget_ms)
    assert spent(count) <= budget_ms * (1 + 1e-6) + 1e-9
    assert spent(count + 2) >= budget_ms * (1 - 1e-6)


def test_pairs_count_what_attention_reads() -> None:
    assert num_pairs([SequenceShare(0, 0, 3, True), SequenceShare(1, 10, 1, True)]) == 1 + 2 + 3 + 11


@given(st.integers(1, 7), st.sampled_from((5.0, 20.0, 60.0)), st.floats(0.05, 2.0), st.sampled_from((None, 0.05)))
@settings(max_examples=40, deadline=None)
def test_gaps_stay_within_the_target_and_the_prompt_advances_in_every_step(
    num_streams: int, step_ms: float, row_ms: float, own_target_s: float | None
) -> None:
    """A step costs step_ms + row_ms a row; 1,000 tokens of prompt come while streams run."""
    simulation = Simulation(
        OrderConfig(), step_ms=step_ms, row_ms=row_ms, warm_up_steps=32, max_batch_tokens=600, max_chunk_tokens=600
    )
    level = ServiceLevel(inter_token_s=own_target_s)
    for index in range(num_streams):
        simulation.scheduler.add(Job(f"stream{index}", 0.0, level, num_tokens=500).request(), seed=0)
    simulation.step()
    simulation.scheduler.add(Job("long", num_prompt=1000, num_tokens=2).request(), seed=0)
    target_ms = 1e3 * (own_target_s or 0.1)
    streams_ms = step_ms + row_ms * num_streams
    floor_ms = max(LEAST_ROWS * row_ms, LEAST_SHARE * streams_ms)
    advanced = 0
    while advanced < 1000:
        plan = simulation.step()
        share = plan.shares[-1]
        assert share.count >= min(LEAST_ROWS, 1000 - advanced)
        advanced += share.count
        took_ms = step_ms + row_ms * plan.num_tokens
        assert took_ms <= max(target_ms, streams_ms + floor_ms) * 1.05 + row_ms
