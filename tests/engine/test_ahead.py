"""Steps that begin by themselves: only where nothing can come in between, and never past a message."""

from collections.abc import Sequence

import pytest

from engine.harness import failure_of, finish_of, make_request, run_to_end, small_config, tokens_alone, tokens_of
from engine.relaying_executor import RelayingExecutor
from engine.test_loop import PATIENCE_S, Gate, Reader
from engine.test_speculation import Oracle
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.types.events import EngineEvent
from vivace.types.request import GenerationRequest, SamplingParams


@pytest.mark.parametrize("is_eager", [False, True])
def test_all_steps_of_a_stream_but_those_of_its_ends_begin_by_themselves(is_eager: bool) -> None:
    executor = RelayingExecutor(is_eager=is_eager)
    engine = Engine(executor, small_config())
    request = make_request(max_tokens=40)
    engine.add(request)
    assert tokens_of(run_to_end(engine, runs_ahead=True)) == tokens_alone(request)[0]
    assert executor.num_relayed == 38  # not the first, which reads the prompt, nor the second, planned after it
    assert not engine.is_ahead


@pytest.mark.parametrize(
    "others",
    [
        {"logprobs": 2},
        {"kv_policy": "keytokens:2:32"},
    ],
    ids=str,
)
def test_streams_of_which_more_is_to_be_known_wait_for_their_tokens(others: dict[str, object]) -> None:
    executor = RelayingExecutor()
    engine = Engine(executor, small_config())
    engine.add(make_request(max_tokens=20, **others))
    run_to_end(engine, runs_ahead=True)
    assert executor.num_relayed == 0


class AloneOnly(Oracle):
    """Guesses for one stream, and refuses to for more."""

    def refuses(self, num_streams: int) -> bool:
        return num_streams > 1

    def rests(self, num_streams: int) -> bool:
        return self.refuses(num_streams)


def test_steps_of_a_company_that_gets_no_drafts_begin_by_themselves() -> None:
    executor = RelayingExecutor()
    requests = [make_request("a", (1, 2), 20), make_request("b", (3, 4), 40)]
    speculator = AloneOnly(requests, seed=0)
    engine = Engine(executor, small_config(), speculator=speculator)
    for request in requests:
        engine.add(request)
    events = run_to_end(engine, runs_ahead=True)
    assert [tokens_of(events, request.request_id) for request in requests] == [
        tokens_alone(request)[0] for request in requests
    ]
    assert 10 < executor.num_relayed < 20  # while there were two, and not once one was left
    assert speculator.num_proposed > 0


def test_who_waits_for_a_seat_that_is_free_is_not_kept_waiting() -> None:
    executor = RelayingExecutor(num_blocks=5)
    engine = Engine(executor, small_config(max_sequences=2, prefix_cache=False))
    engine.add(make_request("a", range(40), max_tokens=20))
    engine.add(make_request("b", range(40), max_tokens=4))
    while engine.scheduler.num_waiting:
        engine.step(may_run_ahead=lambda: True)
        assert not (engine.is_ahead and engine.scheduler.num_waiting)
    assert executor.num_relayed == 0


def test_a_row_that_cannot_be_drawn_fails_its_request_alone() -> None:
    plain = RelayingExecutor()
    engine = Engine(plain, small_config())
    requests = [make_request("a", (1, 2), 30), make_request("b", (4, 5), 30, SamplingParams(seed=3))]
    expected = [tokens_alone(request)[0] for request in requests]
    poison = next(token for token in expected[0][2:] if token not in (*expected[1], 1, 2, 4, 5))
    executor = RelayingExecutor(poison=poison)
    engine = Engine(executor, small_config())
    for request in requests:
        engine.add(request)
    events = run_to_end(engine, runs_ahead=True)
    assert "nan" in str(failure_of(events, "a").error)
    assert tokens_of(events, "b") == expected[1]
    assert executor.num_relayed > 5


def test_a_step_that_fails_after_it_began_by_itself_fails_its_requests() -> None:
    calls = iter(range(100))

    def breaks_late(batch: object) -> None:
        if next(calls) == 6:
            raise RuntimeError("the sixth")

    executor = RelayingExecutor(before_forward=breaks_late)
    engine = Engine(executor, small_config())
    engine.add(make_request("a", max_tokens=30))
    events = run_to_end(engine, runs_ahead=True)
    assert "the sixth" in str(failure_of(events, "a").error)
    request = make_request("b", max_tokens=30)
    engine.add(request)
    assert tokens_of(run_to_end(engine, runs_ahead=True), "b") == tokens_alone(request)[0]


def test_an_engine_that_closes_lets_the_step_under_way_end() -> None:
    executor = RelayingExecutor()
    engine = Engine(executor, small_config())
    engine.add(make_request(max_tokens=30))
    while not engine.is_ahead:
        engine.step(may_run_ahead=lambda: True)
    num_computed = len(executor.batch_sizes)
    engine.close()
    assert executor.is_closed and not engine.is_ahead
    assert len(executor.batch_sizes) == num_computed + 1


def blocked_at(step: int, gate: Gate, loop: EngineLoop, request: GenerationRequest) -> Reader:
    """Submit a request and let its steps through up to one, which is being computed then."""
    reader = Reader()
    loop.submit(request, reader)
    for _ in range(step):
        assert gate.is_waiting.wait(PATIENCE_S)
        gate.is_waiting.clear()
        gate.let(1)
    assert gate.is_waiting.wait(PATIENCE_S)
    return reader


def test_a_message_is_taken_before_another_step_begins() -> None:
    gate = Gate()
    executor = RelayingExecutor(before_forward=gate)
    loop = EngineLoop(Engine(executor, small_config()))
    reader = blocked_at(5, gate, loop, make_request(max_tokens=30))
    loop.cancel("r")
    gate.let(100)
    events = reader.wait()
    loop.close()
    assert finish_of(events).reason == "cancelled"
    assert len(executor.batch_sizes) == len(tokens_of(events)) == 6
    assert executor.num_relayed == 4


def test_a_request_that_comes_while_steps_begin_by_themselves_joins_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    executor = RelayingExecutor(before_forward=gate)
    loop = EngineLoop(Engine(executor, small_config()))
    first, second = make_request("a", max_tokens=30), make_request("b", (7, 8), max_tokens=30)
    readers = [blocked_at(5, gate, loop, first), Reader()]
    loop.submit(second, readers[1])
    gate.let(100)
    for request, reader in zip((first, second), readers, strict=True):
        assert tokens_of(reader.wait(), request.request_id) == tokens_alone(request)[0]
    loop.close()
    assert executor.batch_sizes[6] == 3  # one row of the stream, two of the newcomer's prompt
    assert executor.num_relayed > 20


def test_an_engine_that_broke_while_a_step_was_under_way_says_so_and_closes() -> None:
    executor = RelayingExecutor()
    engine = Engine(executor, small_config())
    commit, calls = engine.scheduler.commit, iter(range(100))

    def breaks(plan: object, result: object) -> list[EngineEvent]:
        if next(calls) == 4:
            raise RuntimeError("out of order")
        return commit(plan, result)  # type: ignore[arg-type]

    engine.scheduler.commit = breaks  # type: ignore[method-assign, assignment]
    loop = EngineLoop(engine)
    reader = Reader()
    loop.submit(make_request(max_tokens=30), reader)
    assert "out of order" in str(failure_of(reader.wait()).error)
    later = Reader()
    loop.submit(make_request("later"), later)
    assert "out of order" in str(failure_of(later.wait(), "later").error)
    loop.close()
    assert executor.is_closed


def test_what_a_step_brought_is_told_while_the_next_is_under_way() -> None:
    executor = RelayingExecutor(is_eager=True)
    loop = EngineLoop(Engine(executor, small_config()))
    reader = Reader()
    told: list[int] = []  # how many steps the executor had begun when each token was told

    def sink(events: Sequence[EngineEvent]) -> None:
        told.append(len(executor.batch_sizes))
        reader(events)

    loop.submit(make_request(max_tokens=6), sink)
    reader.wait()
    loop.close()
    assert executor.num_relayed == 4
    assert told == [2, 3, 4, 5, 6, 6]
