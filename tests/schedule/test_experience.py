"""What readers felt is counted when their answers end."""

import pytest

from engine.fake_executor import FakeExecutor
from engine.harness import make_request, run_to_end, small_config
from vivace.engine.core import Engine
from vivace.types.request import ServiceLevel


class SteppedClock:
    """Every look at it takes so many seconds."""

    def __init__(self, step_s: float) -> None:
        self.now_ns = 0
        self._step_ns = round(step_s * 1e9)

    def __call__(self) -> int:
        self.now_ns += self._step_ns
        return self.now_ns


def told(step_s: float, **level: float) -> Engine:
    engine = Engine(FakeExecutor(), small_config(), clock=SteppedClock(step_s))
    for name in "ab":
        engine.add(make_request(name, [1, 2, 3], 12, ignore_eos=True, service_level=ServiceLevel(**level)))  # type: ignore[arg-type]
    run_to_end(engine)
    return engine


def test_readers_of_a_quick_server_are_happy_and_those_of_a_slow_one_are_not() -> None:
    assert Engine(FakeExecutor(), small_config()).stats().mean_qoe is None
    quick = told(0.001).stats()
    assert quick.mean_qoe == pytest.approx(1) and (quick.num_judged, quick.num_happy, quick.num_stalled) == (2, 2, 0)
    slow = told(0.5).stats()
    assert slow.mean_qoe is not None and slow.mean_qoe < 0.5
    assert (slow.num_judged, slow.num_happy, slow.num_stalled) == (2, 0, 2)


def test_a_slow_reader_is_content_with_a_slow_server() -> None:
    patient = told(0.5, reading_tokens_per_s=0.1, ttft_s=60).stats()
    assert (patient.num_happy, patient.num_stalled) == (2, 0)


def test_an_answer_that_was_cancelled_is_not_judged() -> None:
    engine = Engine(FakeExecutor(), small_config())
    engine.add(make_request("a", [1, 2], 9))
    engine.step()
    engine.cancel("a")
    assert engine.stats().num_judged == 0
