"""The core goes on by itself: the same tokens and the same memory as one step at a time, on every kernel table."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace.execute.native import NativeExecutor, available_isas
from vivace.graph.build import build_graph
from vivace.sample.settings import DrawSettings
from vivace.types.errors import EngineError
from vivace.types.relay import RelayExecutor
from vivace.types.request import SamplingParams
from vivace.types.step import ForwardBatch

NUM_STREAMS = 3
SETTINGS = [
    DrawSettings(SamplingParams(temperature=0), 1),
    DrawSettings(SamplingParams(temperature=0.9), 2),
    DrawSettings(SamplingParams(top_k=20, repetition_penalty=1.2, logit_bias=((5, 1.0),)), 3),
]
NOTHING = np.array([], dtype=np.int32)


def ints(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def executor_of(isa: str) -> NativeExecutor:
    spec = tiny_spec()
    return NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2 * NUM_STREAMS, isa=isa, num_threads=2)


def step_of(tokens: list[int], position: int) -> ForwardBatch:
    rows = list(range(NUM_STREAMS))
    table = np.array([[2 * row, 2 * row + 1] for row in rows], dtype=np.int32)
    starts = ints(*range(NUM_STREAMS + 1))
    return ForwardBatch(ints(*tokens), ints(*[position] * NUM_STREAMS), starts, table, ints(*rows))


def histories_of(told: list[list[int]]) -> list[NDArray[np.int32]]:
    return [ints(*row) for row in zip(*told, strict=True)]


def one_at_a_time(isa: str, count: int) -> list[list[int]]:
    executor, told = executor_of(isa), [[1, 2, 3]]
    for position in range(count):
        logits = executor.forward(step_of(told[-1], position))
        told.append(executor.draw(logits, [settings.plain for settings in SETTINGS], histories_of(told)))
    return told


def relay(
    executor: NativeExecutor, told: list[list[int]], stops: list[NDArray[np.int32]] | None = None
) -> tuple[list[int], NDArray[np.float32] | None]:
    return executor.relay([settings.plain for settings in SETTINGS], histories_of(told), stops or [NOTHING] * 3)


@pytest.mark.parametrize("isa", available_isas())
def test_steps_that_follow_by_themselves_draw_what_single_steps_draw(isa: str) -> None:
    expected = one_at_a_time(isa, 20)
    executor, told = executor_of(isa), [[1, 2, 3]]
    executor.start(step_of(told[0], 0))
    for position in range(1, 20):
        executor.prepare(step_of([0] * NUM_STREAMS, position))
        tokens, logits = relay(executor, told)
        assert logits is None
        told.append(tokens)
    logits = executor.finish()
    told.append(executor.draw(logits, [settings.plain for settings in SETTINGS], histories_of(told)))
    assert told == expected


def test_a_token_that_ends_a_sequence_or_a_hold_leaves_the_prepared_step_alone() -> None:
    expected = one_at_a_time("scalar", 4)
    executor, told = executor_of("scalar"), [[1, 2, 3]]
    executor.start(step_of(told[0], 0))
    executor.prepare(step_of([0] * NUM_STREAMS, 1))
    tokens, logits = relay(executor, told, [NOTHING, ints(8, expected[1][1]), NOTHING])
    assert tokens == expected[1] and logits is not None
    assert logits[0].argmax() == tokens[0]
    told.append(tokens)
    executor.start(step_of(tokens, 1))  # nothing is under way, so this one may begin
    executor.prepare(step_of([0] * NUM_STREAMS, 2))
    executor.hold()
    tokens, logits = relay(executor, told)
    assert tokens == expected[2] and logits is not None
    told.append(tokens)
    executor.start(step_of(tokens, 2))
    executor.prepare(step_of([0] * NUM_STREAMS, 3))  # which forgets the hold
    tokens, logits = relay(executor, told)
    assert tokens == expected[3] and logits is None


def test_what_does_not_fit_is_refused_before_anything_is_drawn() -> None:
    executor = executor_of("scalar")
    executor.start(step_of([1, 2, 3], 0))
    with pytest.raises(EngineError, match="no step was prepared"):
        relay(executor, [[1, 2, 3]])
    with pytest.raises(EngineError, match="shorter than its sequence"):
        executor.prepare(step_of([0] * NUM_STREAMS, 32))
    whole = step_of([0, 0, 0], 1)
    with pytest.raises(EngineError, match="one row a sequence"):
        executor.prepare(ForwardBatch(whole.token_ids, ints(1, 2, 3), ints(0, 3), whole.block_tables[:1], ints(0)))
    executor.prepare(whole)
    with pytest.raises(EngineError, match="other sequences"):
        executor.relay([SETTINGS[0].plain], [ints(1)], [NOTHING])
    tokens, logits = relay(executor, [[1, 2, 3]])  # it is still under way, and still prepared
    assert logits is None and tokens == one_at_a_time("scalar", 1)[1]
    del executor  # and what is never finished does not keep it from going


def test_a_native_executor_is_one_that_relays() -> None:
    assert isinstance(executor_of("scalar"), RelayExecutor)
