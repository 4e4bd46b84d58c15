"""Pacing: a burst is spread over its reading time, a slow answer is passed on, the buffer is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.stream.pacing import MAX_BUFFER_S, PACES, Pacer, ReadingTime, pace
from vivace.types.errors import RequestError


def play(arrivals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(time of arrival, time of showing) of events that take so long to read, sent one after the other."""
    pacer, shown, now = Pacer(), [], 0.0
    times = [sum(gap for gap, _ in arrivals[: number + 1]) for number in range(len(arrivals))]
    for number, (arrived, (_, reading)) in enumerate(zip(times, arrivals, strict=True)):
        now = max(now, arrived)
        backlog = sum(row[1] for at, row in zip(times[number + 1 :], arrivals[number + 1 :], strict=True) if at <= now)
        now += pacer.delay_s(reading, backlog, now)
        shown.append((arrived, now))
    return shown


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=30))
def test_nothing_waits_longer_than_the_buffer_nor_longer_than_its_reader(arrivals: list[tuple[float, float]]) -> None:
    read_until = 0.0
    longest = max((reading for _, reading in arrivals), default=0.0)  # the bound is looked at once an event
    for (arrived, shown), (_, reading) in zip(play(arrivals), arrivals, strict=True):
        assert shown - arrived <= MAX_BUFFER_S + longest + 1e-6
        assert shown <= max(arrived, read_until) + 1e-6, "a reader who has read all gets the next at once"
        read_until = max(read_until, shown) + reading


def test_a_burst_is_spread_and_a_slow_answer_is_not_delayed() -> None:
    burst = play([(0.0, 0.2)] * 5)
    assert [shown for _, shown in burst] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    slow = play([(1.0, 0.2)] * 5)
    assert all(shown == arrived for arrived, shown in slow)


def test_code_is_fast_and_dense_text_slow() -> None:
    plain, dense, code = ReadingTime(), ReadingTime(), ReadingTime()
    code.of("```python\n")
    assert code.of(" return a value") < plain.of(" return a value") < dense.of(" return 12345 value")
    code.of("\n```\n")
    assert code.of(" return a value") == plain.of(" return a value")
    assert ReadingTime().of("你好世界") == pytest.approx(4 / 9)


@given(st.lists(st.sampled_from(["word ", "wo", "rd ", "你好", "```\n", "\n"]), max_size=20))
def test_reading_time_is_never_negative(pieces: list[str]) -> None:
    timer = ReadingTime()
    assert all(timer.of(piece) >= 0 for piece in pieces)


def test_paces_by_name() -> None:
    assert pace("off")() is None
    assert isinstance(pace("reader")(), Pacer)
    with pytest.raises(RequestError, match=", ".join(PACES)):
        pace("slow")
