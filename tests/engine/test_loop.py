"""One thread owns the engine: everyone may submit and cancel, and every request hears one end, whatever breaks."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.fake_executor import FakeExecutor
from engine.harness import finish_of, make_request, small_config, tokens_alone, tokens_of
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.types.errors import EngineError, OverloadedError, RequestError
from vivace.types.events import EngineEvent, FailEvent, FinishEvent
from vivace.types.step import ForwardBatch

PATIENCE_S = 60


class Reader:
    """A sink that collects; `wait` blocks until the request has ended."""

    def __init__(self, num_choices: int = 1) -> None:
        self.events: list[EngineEvent] = []
        self.threads: set[str] = set()
        self._open = num_choices
        self._ended = threading.Event()
        self.first = threading.Event()

    def __call__(self, events: Sequence[EngineEvent]) -> None:
        self.threads.add(threading.current_thread().name)
        self.events += events
        self._open -= sum(isinstance(event, FinishEvent) for event in events)
        self.first.set()
        if self._open == 0 or isinstance(events[-1], FailEvent):
            self._ended.set()

    def wait(self) -> list[EngineEvent]:
        assert self._ended.wait(PATIENCE_S)
        return self.events


class Gate:
    """Lets as many steps through as it is told to."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self.is_waiting = threading.Event()

    def __call__(self, batch: ForwardBatch) -> None:
        self.is_waiting.set()
        assert self._permits.acquire(timeout=PATIENCE_S)

    def let(self, count: int) -> None:
        self._permits.release(count)


class HalvedExecutor(FakeExecutor):
    """Starts and finishes apart, and notes both."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(num_blocks=30)
        self.told = told

    def start(self, batch: ForwardBatch) -> None:
        self.told.append("start")
        self._batch = batch

    def finish(self) -> NDArray[np.float32]:
        self.told.append("finish")
        return self.forward(self._batch)


def test_what_a_step_brought_is_told_while_the_next_is_computed() -> None:
    told: list[str] = []
    loop = EngineLoop(Engine(HalvedExecutor(told), small_config()))
    request, reader = make_request("r", max_tokens=3), Reader()

    def sink(events: Sequence[EngineEvent]) -> None:
        told.append("told")
        reader(events)

    loop.submit(request, sink)
    assert tokens_of(reader.wait()) == tokens_alone(request)[0]
    loop.close()
    assert told == ["start", "finish", *["start", "told", "finish"] * 2, "told"]


def test_requests_of_many_threads_say_what_they_say_alone() -> None:
    loop = EngineLoop(Engine(FakeExecutor(num_blocks=30), small_config()))
    requests = [make_request(f"r{index}", prompt=range(index + 1), n=1 + index % 2) for index in range(24)]
    readers = [Reader(request.n) for request in requests]

    def submit(part: int) -> None:
        for request, reader in list(zip(requests, readers, strict=True))[part::4]:
            loop.submit(request, reader)

    threads = [threading.Thread(target=submit, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for request, reader in zip(requests, readers, strict=True):
        events = reader.wait()
        for choice in range(request.n):
            assert tokens_of(events, request.request_id, choice) == tokens_alone(request)[choice]
        assert reader.threads == {"vivace-engine"}
    for thread in threads:
        thread.join()
    loop.close()


def test_a_cancel_ends_a_request_and_frees_its_blocks() -> None:
    gate = Gate()
    loop = EngineLoop(Engine(FakeExecutor(before_forward=gate), small_config()))
    reader, other = Reader(), Reader()
    loop.submit(make_request("r", max_tokens=500), reader)
    loop.submit(make_request("other", max_tokens=3), other)
    gate.let(1)
    assert reader.first.wait(PATIENCE_S)
    loop.cancel("r")
    loop.cancel("unknown")
    gate.let(20)
    assert finish_of(reader.wait()).reason == "cancelled"
    assert finish_of(other.wait(), "other").reason == "length"
    loop.close()
    assert loop.stats().held_blocks == 0


def test_one_choice_can_be_cancelled() -> None:
    gate = Gate()
    loop = EngineLoop(Engine(FakeExecutor(before_forward=gate), small_config()))
    reader = Reader(2)
    loop.submit(make_request(n=2, max_tokens=6), reader)
    gate.let(1)
    assert reader.first.wait(PATIENCE_S)
    loop.cancel("r", 1)
    gate.let(20)
    events = reader.wait()
    assert finish_of(events, choice=1).reason == "cancelled"
    assert finish_of(events, choice=0).reason == "length"
    loop.close()


def test_a_refused_request_hears_why() -> None:
    loop = EngineLoop(Engine(FakeExecutor(num_blocks=2), small_config()))
    reader = Reader()
    loop.submit(make_request(prompt=range(100)), reader)
    (failure,) = reader.wait()
    assert isinstance(failure, FailEvent) and "100 tokens" in str(failure.error)
    loop.close()


def test_a_second_request_of_the_same_id_is_refused_and_the_first_goes_on() -> None:
    gate = Gate()
    loop = EngineLoop(Engine(FakeExecutor(before_forward=gate), small_config()))
    first, second = Reader(), Reader()
    loop.submit(make_request(), first)
    loop.submit(make_request(), second)
    gate.let(50)
    (failure,) = second.wait()
    assert isinstance(failure, FailEvent) and isinstance(failure.error, RequestError)
    assert tokens_of(first.wait()) == tokens_alone(make_request())[0]
    loop.close()


def test_closing_fails_what_is_in_work_and_frees_the_executor() -> None:
    gate = Gate()
    executor = FakeExecutor(before_forward=gate)
    loop = EngineLoop(Engine(executor, small_config(max_sequences=1)))
    running, waiting = Reader(), Reader()
    loop.submit(make_request("running", max_tokens=100), running)
    loop.submit(make_request("waiting"), waiting)
    assert gate.is_waiting.wait(PATIENCE_S)
    closer = threading.Thread(target=loop.close)
    closer.start()
    gate.let(1000)
    closer.join(PATIENCE_S)
    for reader in (running, waiting):
        assert isinstance(reader.wait()[-1], FailEvent)
    assert executor.is_closed
    assert not loop.healthy
    loop.close()
    loop.cancel("running")
    with pytest.raises(OverloadedError, match="closed"):
        loop.submit(make_request(), Reader())


def test_a_reader_that_raises_is_dropped_and_the_others_hear_on(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    loop = EngineLoop(Engine(FakeExecutor(before_forward=gate), small_config()))
    heard = SimpleQueue[int]()

    def broken(events: Sequence[EngineEvent]) -> None:
        heard.put(1)
        raise RuntimeError("the client is gone")

    other = Reader()
    loop.submit(make_request("broken"), broken)
    loop.submit(make_request("other"), other)
    gate.let(50)
    assert tokens_of(other.wait(), "other") == tokens_alone(make_request())[0]
    loop.close()
    assert heard.qsize() == 1
    assert "the reader of request broken is gone" in caplog.text


def test_a_broken_scheduler_fails_everyone_now_and_later(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    engine = Engine(FakeExecutor(before_forward=gate), small_config())
    loop = EngineLoop(engine)
    first, later = Reader(), Reader()
    loop.submit(make_request("first"), first)
    assert gate.is_waiting.wait(PATIENCE_S)
    engine.scheduler.commit = lambda plan, result: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    gate.let(10)
    (failure,) = first.wait()
    assert isinstance(failure, FailEvent) and isinstance(failure.error, EngineError)
    assert not loop.healthy
    loop.submit(make_request("later"), later)
    assert isinstance(later.wait()[0], FailEvent)
    loop.close()
    assert "the engine broke" in caplog.text


def test_an_executor_that_keeps_failing_makes_the_loop_unhealthy() -> None:
    def fail(batch: ForwardBatch) -> None:
        raise RuntimeError("no")

    loop = EngineLoop(Engine(FakeExecutor(before_forward=fail), small_config()))
    for index in range(3):
        reader = Reader()
        loop.submit(make_request(f"r{index}"), reader)
        assert isinstance(reader.wait()[-1], FailEvent)
    assert not loop.healthy
    loop.close()


def test_close_may_be_called_from_a_reader() -> None:
    loop = EngineLoop(Engine(FakeExecutor(), small_config()))
    closed = threading.Event()

    def close(events: Sequence[EngineEvent]) -> None:
        loop.close()
        closed.set()

    loop.submit(make_request(), close)
    assert closed.wait(PATIENCE_S)
    loop.close()
