"""Stages of a request follow each other without gap and sum to end-to-end."""

import pytest

from vivace.telemetry.timeline import StageTimeline


def test_stages_sum_to_the_whole() -> None:
    timeline = StageTimeline("queued", 1_000_000_000)
    timeline.enter("prefill", 1_500_000_000)
    timeline.enter("decode", 3_000_000_000)
    timeline.end(7_000_000_000)
    seconds = timeline.seconds()
    assert seconds == {"queued": 0.5, "prefill": 1.5, "decode": 4.0}
    assert sum(seconds.values()) == pytest.approx(6.0)


def test_a_stage_entered_twice_is_summed_and_nothing_counts_after_the_end() -> None:
    timeline = StageTimeline("queued", 0)
    timeline.enter("prefill", 10**9)
    timeline.enter("queued", 2 * 10**9)
    assert timeline.seconds(now_ns=5 * 10**9) == {"queued": 4.0, "prefill": 1.0}
    timeline.end(6 * 10**9)
    timeline.enter("decode", 7 * 10**9)
    timeline.end(9 * 10**9)
    assert timeline.has_ended
    assert timeline.seconds() == {"queued": 5.0, "prefill": 1.0}


def test_an_open_stage_without_a_clock_has_no_length_yet() -> None:
    assert StageTimeline("queued", 5).seconds() == {"queued": 0.0}
