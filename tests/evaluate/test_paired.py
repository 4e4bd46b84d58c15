"""Paired tests against counts worked out by hand and by enumeration."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.evaluate.paired import compare_answers, mcnemar, wilson_interval


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    outcomes = list(product([0, 1], repeat=6))
    as_far = sum(min(sum(outcome), 6 - sum(outcome)) <= 2 for outcome in outcomes) / len(outcomes)
    assert mcnemar(2, 4) == pytest.approx(as_far)


@given(lost=st.integers(0, 300), won=st.integers(0, 300))
def test_mcnemar_does_not_care_who_is_first(lost: int, won: int) -> None:
    assert 0 < mcnemar(lost, won) == mcnemar(won, lost) <= 1


def test_recovery_and_its_interval() -> None:
    right, reference = [True] * 80 + [False] * 20, [True] * 100
    found = compare_answers(right, reference)
    assert (found.lost, found.won, found.recovery) == (20, 0, 0.8)
    assert found.p_value < 1e-4
    assert found.recovery_low is not None
    assert found.recovery_high is not None
    assert 0.70 < found.recovery_low < 0.76
    assert 0.84 < found.recovery_high < 0.90
    assert compare_answers(right, reference) == found


def test_a_reference_that_knows_nothing_has_no_recovery() -> None:
    found = compare_answers([True, False], [False, False])
    assert found.recovery is None
    assert found.recovery_low is None
    assert found.won == 1


def test_the_interval_of_a_share() -> None:
    low, high = wilson_interval(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 20)[0] == 0.0
