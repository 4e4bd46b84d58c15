"""Which size of draft model pays."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.plan.draft_sizes import DraftModel, best_of, fit_line, rank_sizes
from vivace.plan.speculate import expected_speedup
from vivace.types.errors import ConfigError

FLAT = {1: 8.0, 9: 8.0}


def test_a_line_through_timed_steps_gives_the_fixed_part_and_that_of_a_byte() -> None:
    line = fit_line({20_000_000: 3.0, 60_000_000: 5.0, 100_000_000: 7.0})
    assert line.fixed_ms == pytest.approx(2.0) and line.ms(10_000_000) == pytest.approx(2.5)


@pytest.mark.parametrize("step_ms", [{100: 7.0}, {100: 7.0, 50: 2.0}, {100: 7.0, 50: 9.0}])
def test_where_a_line_would_make_small_models_free_or_dearer_it_goes_through_nought(step_ms: dict[int, float]) -> None:
    line = fit_line(step_ms)
    assert line.fixed_ms == 0 and line.ms(10) < line.ms(20)


def test_the_chapters_example_is_a_row_of_the_table() -> None:
    (row,) = rank_sizes([DraftModel("small", 10, 0.1, 0.7)], 4, FLAT)
    assert row.speedup == pytest.approx(max(expected_speedup(0.7, k, 0.1) for k in range(1, 5)))
    assert row.speedup == pytest.approx(1.981, abs=1e-3) and row.best_drafts == 4 and row.pays


def test_a_larger_draft_pays_only_by_being_right_more_often() -> None:
    same = rank_sizes([DraftModel("10M", 1, 0.1, 0.6), DraftModel("60M", 6, 0.4, 0.6)], 8, FLAT)
    assert best_of(same) is same[0]
    better = rank_sizes([DraftModel("10M", 1, 0.1, 0.1), DraftModel("60M", 6, 0.4, 0.9)], 8, FLAT)
    assert best_of(better) is better[1] and better[1].best_drafts > better[0].best_drafts
    assert better[0].break_even is not None and better[1].break_even is not None
    assert better[0].break_even < better[1].break_even


def test_where_rows_cost_as_much_as_steps_no_size_pays() -> None:
    (row,) = rank_sizes([DraftModel("10M", 1, 0.1, 1.0)], 8, {1: 10.0, 2: 20.0, 9: 90.0})
    assert not row.pays and row.break_even is None and best_of([row]) is None


@given(st.floats(0.01, 2.0), st.floats(0, 1.0), st.integers(1, 16))
def test_at_the_break_even_acceptance_nothing_is_won_or_lost(cost: float, slope: float, most: int) -> None:
    costs = {1: 5.0, 17: 5.0 * (1 + 16 * slope)}
    (row,) = rank_sizes([DraftModel("one", 1, cost, 0.5)], most, costs)
    if row.break_even is None:
        assert rank_sizes([DraftModel("one", 1, cost, 1.0)], most, costs)[0].speedup < 1
        return
    (even,) = rank_sizes([DraftModel("one", 1, cost, row.break_even)], most, costs)
    assert even.speedup == pytest.approx(1, abs=1e-5)
    assert row.pays == (row.break_even < 0.5) or row.speedup == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("draft", "most", "costs"),
    [
        (DraftModel("x", 1, 0.0, 0.5), 4, FLAT),
        (DraftModel("x", 1, math.nan, 0.5), 4, FLAT),
        (DraftModel("x", 1, 0.1, 1.5), 4, FLAT),
        (DraftModel("x", 1, 0.1, 0.5), 0, FLAT),
        (DraftModel("x", 1, 0.1, 0.5), 65, FLAT),
        (DraftModel("x", 1, 0.1, 0.5), 4, {2: 1.0}),
    ],
)
def test_sizes_that_make_no_sense_are_refused(draft: DraftModel, most: int, costs: dict[int, float]) -> None:
    with pytest.raises(ConfigError):
        rank_sizes([draft], most, costs)


@pytest.mark.parametrize("step_ms", [{}, {0: 1.0}, {5: 0.0}, {5: math.inf}])
def test_a_line_needs_steps_that_took_time(step_ms: dict[int, float]) -> None:
    with pytest.raises(ConfigError):
        fit_line(step_ms)
