"""Votes survive the file, standings and ratings follow from them, and a side that people favour is seen."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.evaluate.votes import ELO_PER_NAT, Vote, VoteStore, ratings, standing
from vivace.types.errors import StorageError


def votes(score: float, count: int, left: str = "a", right: str = "b") -> list[Vote]:
    return [Vote("q", left, right, "x", "y", score)] * count


def test_votes_are_in_the_file_after_a_restart(tmp_path: Path) -> None:
    store = VoteStore(tmp_path / "v.sqlite")
    for vote in votes(1.0, 2) + votes(0.5, 1, "b", "a"):
        store.add(vote)
    store.close()
    again = VoteStore(tmp_path / "v.sqlite")
    assert again.all() == votes(1.0, 2) + votes(0.5, 1, "b", "a")
    again.close()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(StorageError, match="cannot be opened"):
        VoteStore(tmp_path / "x.sqlite")


def test_the_side_does_not_matter_to_the_standing() -> None:
    cast = votes(1.0, 6) + votes(0.0, 6, "b", "a") + votes(0.0, 3) + votes(0.5, 1)
    found = standing(cast, "a", "b")
    assert (found.wins, found.losses, found.ties) == (12, 3, 1)
    assert found.win_rate == pytest.approx(12.5 / 16)
    assert found.low < found.win_rate < found.high
    assert found.p_value == pytest.approx(0.0352, abs=1e-4)  # two-sided binomial of 3 in 15
    assert found.left_rate == pytest.approx(6 / 15)
    mirrored = standing(cast, "b", "a")
    assert mirrored.win_rate == pytest.approx(1 - found.win_rate)
    assert standing([], "a", "b").win_rate is None


def test_two_models_get_the_rating_of_their_odds() -> None:
    rows = ratings(votes(1.0, 150) + votes(0.0, 50))
    assert [row.model for row in rows] == ["a", "b"]
    assert rows[0].elo - rows[1].elo == pytest.approx(ELO_PER_NAT * 1.0986, abs=2)  # ln 3
    assert rows[0].elo + rows[1].elo == pytest.approx(3000)
    assert rows[0].low < rows[0].elo < rows[0].high
    assert rows[0].low > rows[1].high
    assert ratings(votes(1.0, 150) + votes(0.0, 50)) == rows


def test_few_votes_or_votes_that_agree_leave_wide_intervals() -> None:
    spans = {count: ratings(votes(1.0, count))[0] for count in (1, 4, 40)}
    widths = {count: row.high - row.low for count, row in spans.items()}
    assert spans[1].low < 1500 < spans[1].high
    assert spans[40].low > 1500
    assert all(width > 100 for width in widths.values())


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator, truth = np.random.default_rng(3), ELO_PER_NAT * 0.5 * np.log(0.7 / 0.3)
    held = 0
    for _ in range(200):
        cast = [Vote("q", "a", "b", "", "", float(score)) for score in generator.random(60) < 0.7]
        row = next(row for row in ratings(cast) if row.model == "a")
        held += row.low <= 1500 + truth <= row.high
    assert 180 <= held <= 199


def test_models_that_never_met_are_compared_through_a_third() -> None:
    cast = votes(1.0, 30, "a", "b") + votes(0.0, 10, "a", "b") + votes(1.0, 30, "b", "c") + votes(0.0, 10, "b", "c")
    assert [row.model for row in ratings(cast)] == ["a", "b", "c"]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), max_size=12)
)
def test_any_votes_give_finite_ratings_inside_their_intervals(cast: list[tuple[str, str, float]]) -> None:
    rows = ratings([Vote("q", left, right, "", "", score) for left, right, score in cast if left != right])
    for row in rows:
        assert 0 < row.elo < 3000
        assert row.low <= row.high
