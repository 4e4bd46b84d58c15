"""The calculator of speculation."""

import math

import numpy as np
import pytest

from vivace.plan.speculate import break_even_cost, chapter_speedup, expected_speedup, expected_tokens, plan_speculation
from vivace.types.errors import ConfigError


def test_the_chapters_example_is_1_98_and_not_2_71() -> None:
    assert chapter_speedup(0.7, 4, 10) == pytest.approx(2.714, abs=1e-3)
    assert expected_speedup(0.7, 4, 0.1) == pytest.approx(1.981, abs=1e-3)


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.7, 1.0])
def test_expected_tokens_are_what_a_simulation_counts(acceptance: float) -> None:
    stands = np.random.default_rng(0).random((200_000, 5)) < acceptance
    simulated = 1 + np.cumprod(stands, axis=1).sum(axis=1).mean()
    assert expected_tokens(acceptance, 5) == pytest.approx(simulated, rel=0.01)


def test_at_the_break_even_cost_nothing_is_won() -> None:
    cost = break_even_cost(0.6, 3, 1.2)
    assert expected_speedup(0.6, 3, cost, 1.2) == pytest.approx(1)


def test_measured_costs_decide_whether_drafts_pay() -> None:
    cheap = plan_speculation(0.5, 4, 10, {1: 20.0, 9: 22.0})
    dear = plan_speculation(0.5, 4, 10, {1: 20.0, 2: 40.0, 9: 180.0})
    assert cheap.expected > 1 > dear.expected
    assert cheap.verify_cost == pytest.approx(1.05)
    assert not any(row.pays for row in dear.rows)
    free = cheap.rows[-1]
    assert math.isinf(free.draft_speed) and free.pays and free.best_drafts == 4
    assert [row.speedup for row in cheap.rows] == sorted(row.speedup for row in cheap.rows)


def test_costs_between_and_beyond_measured_rows_lie_on_lines() -> None:
    assert plan_speculation(0.5, 2, 10, {1: 1.0, 5: 2.0}).verify_cost == pytest.approx(1.5)
    assert plan_speculation(0.5, 8, 10, {1: 1.0, 5: 2.0}).verify_cost == pytest.approx(3.0)
    assert plan_speculation(0.5, 8, 10).verify_cost == 1.0


@pytest.mark.parametrize(
    ("acceptance", "drafts", "speed", "costs"),
    [
        (1.5, 4, 10, None),
        (-0.1, 4, 10, None),
        (0.5, 0, 10, None),
        (0.5, 65, 10, None),
        (0.5, 4, 0, None),
        (math.nan, 4, 10, None),
        (0.5, 4, math.nan, None),
        (0.5, 4, 10, {2: 1.0}),
        (0.5, 4, 10, {1: 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(acceptance: float, drafts: int, speed: float, costs: dict) -> None:
    with pytest.raises(ConfigError):
        plan_speculation(acceptance, drafts, speed, costs)
