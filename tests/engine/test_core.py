"""The engine bears faults of its executor, keeps its books, and tells each request's story exactly once."""

import pytest

from engine.fake_executor import FakeExecutor
from engine.harness import failure_of, finish_of, make_request, run_to_end, small_config, tokens_alone, tokens_of
from vivace.engine.core import Engine
from vivace.telemetry.timeline import StageTimeline
from vivace.types.errors import ConfigError, ContextLengthError, EngineError
from vivace.types.events import EngineEvent
from vivace.types.request import SamplingParams
from vivace.types.step import ForwardBatch


class FailingSteps:
    """Raises in chosen calls of `forward`, counted from 0."""

    def __init__(self, *numbers: int, error: Exception | None = None) -> None:
        self.numbers, self.error = set(numbers), error or RuntimeError("the core is gone")
        self.num_calls = 0

    def __call__(self, batch: ForwardBatch) -> None:
        self.num_calls += 1
        if self.num_calls - 1 in self.numbers:
            raise self.error


def test_a_failing_step_fails_its_requests_and_the_next_ones_are_answered() -> None:
    engine = Engine(FakeExecutor(before_forward=FailingSteps(1)), small_config())
    engine.add(make_request("r"))
    events = run_to_end(engine)
    assert isinstance(failure_of(events).error, EngineError)
    assert "the core is gone" in str(failure_of(events).error)
    assert engine.healthy
    engine.add(make_request("again"))
    assert tokens_of(run_to_end(engine), "again") == tokens_alone(make_request())[0]
    stats = engine.stats()
    assert (stats.num_failed_requests, stats.num_requests, stats.held_blocks) == (1, 2, 0)


def test_requests_that_were_not_in_the_failing_step_go_on() -> None:
    engine = Engine(FakeExecutor(before_forward=FailingSteps(0)), small_config(max_sequences=1))
    engine.add(make_request("first"))
    engine.add(make_request("second"))
    events = run_to_end(engine)
    failure_of(events, "first")
    assert tokens_of(events, "second") == tokens_alone(make_request())[0]


def test_an_error_of_our_own_is_told_as_it_is() -> None:
    error = EngineError("The batch is refused.")
    engine = Engine(FakeExecutor(before_forward=FailingSteps(0, error=error)), small_config())
    engine.add(make_request())
    assert failure_of(run_to_end(engine)).error is error


def test_three_failing_steps_in_a_row_make_the_engine_unhealthy_and_a_good_one_heals_it() -> None:
    engine = Engine(FakeExecutor(before_forward=FailingSteps(0, 1, 2)), small_config())
    for name in "abc":
        assert engine.healthy
        engine.add(make_request(name))
        failure_of(run_to_end(engine), name)
    assert not engine.healthy
    engine.add(make_request("d"))
    run_to_end(engine)
    assert engine.healthy


def test_a_copy_that_fails_fails_everyone_who_runs() -> None:
    executor = FakeExecutor()
    engine = Engine(executor, small_config())
    engine.add(make_request("forked", prompt=range(20), n=3))
    engine.add(make_request("beside"))
    events = engine.step()

    def broken(pairs: object) -> None:
        raise RuntimeError("no copy")

    executor.copy_blocks = broken  # type: ignore[method-assign]
    events += run_to_end(engine)
    failure_of(events, "forked")
    failure_of(events, "beside")


def test_a_row_of_nan_fails_its_request_alone() -> None:
    sound = tokens_alone(make_request("sound", prompt=(4, 4, 4)))[0]
    poison = next(token for token in range(32) if token not in sound and token != 4)
    engine = Engine(FakeExecutor(poison=poison), small_config())
    engine.add(make_request("sound", prompt=(4, 4, 4)))
    engine.add(make_request("sick", prompt=(1, poison)))
    events = run_to_end(engine)
    assert "nan" in str(failure_of(events, "sick").error)
    assert tokens_of(events, "sound") == sound
    assert finish_of(events, "sound").reason == "length"


def test_a_request_that_can_never_fit_is_refused_when_it_comes() -> None:
    engine = Engine(FakeExecutor(num_blocks=2), small_config())
    with pytest.raises(ContextLengthError):
        engine.add(make_request(prompt=range(40)))
    assert not engine.has_work


def test_more_rows_than_the_executor_takes_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="max_batch_tokens is 64 and the executor takes 32"):
        Engine(FakeExecutor(max_rows=32), small_config())


def test_failing_all_ends_every_request_once_and_forgets_prefixes() -> None:
    engine = Engine(FakeExecutor(), small_config(max_sequences=1))
    for name in ("running", "waiting"):
        engine.add(make_request(name, prompt=range(30)))
    events = engine.step()
    events += engine.fail_all(EngineError("over"))
    for name in ("running", "waiting"):
        failure_of(events, name)
    stats = engine.stats()
    assert not engine.has_work
    assert stats.free_blocks == stats.total_blocks


def test_unseeded_requests_differ_and_seeded_ones_do_not() -> None:
    def answer(name: str, sampling: SamplingParams) -> list[int]:
        engine.add(make_request(name, max_tokens=20, sampling=sampling))
        return tokens_of(run_to_end(engine), name)

    engine = Engine(FakeExecutor(), small_config())
    assert answer("a", SamplingParams()) != answer("b", SamplingParams())
    assert answer("c", SamplingParams(seed=4)) == answer("d", SamplingParams(seed=4))


def test_choices_of_a_seeded_request_differ_from_each_other() -> None:
    engine = Engine(FakeExecutor(), small_config())
    engine.add(make_request(sampling=SamplingParams(seed=1), n=3))
    events = run_to_end(engine)
    assert len({tuple(tokens_of(events, "r", choice)) for choice in range(3)}) == 3


class Ticks:
    """A clock that moves a second a reading."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 10**9
        return self.now


def test_the_timeline_goes_through_queued_prefill_and_decode_and_ends() -> None:
    clock = Ticks()
    engine = Engine(FakeExecutor(), small_config(max_chunk_tokens=8), clock=clock)
    timeline = StageTimeline("queued", clock())
    engine.add(make_request(prompt=range(20), max_tokens=3), timeline)
    run_to_end(engine)
    assert timeline.has_ended
    assert list(timeline.seconds()) == ["queued", "prefill", "decode"]
    assert sum(timeline.seconds().values()) == clock.now / 1e9 - 1


def test_the_timeline_of_a_cancelled_request_ends_too() -> None:
    engine = Engine(FakeExecutor(), small_config())
    timeline = StageTimeline("queued", 0)
    engine.add(make_request(), timeline)
    events: list[EngineEvent] = engine.cancel("r")
    assert finish_of(events).reason == "cancelled"
    assert timeline.has_ended


def test_counts_add_up() -> None:
    engine = Engine(FakeExecutor(), small_config())
    for name in "ab":
        engine.add(make_request(name, prompt=range(20), max_tokens=5))
        run_to_end(engine)
    stats = engine.stats()
    assert (stats.num_requests, stats.num_finished_choices, stats.num_generated_tokens) == (2, 2, 10)
    assert stats.num_cached_tokens == 16
    assert stats.num_computed_tokens == (20 + 4) + (4 + 4)
    assert stats.num_steps == 10
