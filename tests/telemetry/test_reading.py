"""What a reader felt, from the times tokens came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.telemetry.reading import quality_of_experience, reading_times, stalled_s


def test_tokens_are_read_at_the_readers_pace_or_when_they_come() -> None:
    assert reading_times([0.0, 0.0, 0.0], rate=2).tolist() == [0.0, 0.5, 1.0]
    assert reading_times([0.0, 3.0], rate=2).tolist() == [0.0, 3.0]


def test_an_answer_that_is_never_late_is_perfect_and_a_later_one_is_worse() -> None:
    on_time = [1.0 + index / 5 for index in range(20)]
    assert quality_of_experience(on_time, 0.0, rate=5, ttft_s=1.0) == pytest.approx(1)
    late = [moment + 2 for moment in on_time]
    later = [moment + 6 for moment in on_time]
    scores = [quality_of_experience(times, 0.0, rate=5, ttft_s=1.0) for times in (late, later)]
    assert 1 > scores[0] > scores[1] > 0
    assert quality_of_experience([], 0.0, rate=5, ttft_s=1.0) == 0


def test_stalls_are_what_the_reader_waits_after_the_first_token() -> None:
    assert stalled_s([5.0, 5.1, 5.2], rate=1) == 0
    assert stalled_s([0.0, 4.0], rate=1) == pytest.approx(3)
    assert stalled_s([], rate=1) == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(0.5, 20), st.floats(0, 10))
def test_a_score_lies_between_nothing_and_everything(times: list[float], rate: float, ttft_s: float) -> None:
    assert 0 <= quality_of_experience(sorted(times), 0.0, rate, ttft_s) <= 1 + 1e-9
