"""Tokens drawn in the core are those that numpy draws, whatever the parameters, the table and the company."""

import random
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace.execute.native import NativeExecutor, available_isas
from vivace.graph.build import build_graph
from vivace.sample.randomness import uniform
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.types.errors import EngineError
from vivace.types.request import SamplingParams

ISAS = available_isas()
VOCAB = 5003  # no multiple of a lane, of a segment, or of anything


def executor_with(vocab_size: int, isa: str, num_threads: int = 2) -> NativeExecutor:
    spec = replace(tiny_spec(), vocab_size=vocab_size)
    return NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2, isa=isa, num_threads=num_threads)


def random_row(draw: random.Random) -> DrawRow:
    params = SamplingParams(
        temperature=draw.choice([0, 0.1, 0.7, 1, 2]),
        top_k=draw.choice([0, 0, 1, 7, 40, 3000]),
        top_p=draw.choice([1, 1, 0.3, 0.9, 0.999]),
        min_p=draw.choice([0, 0, 0.01, 0.6, 1.0]),
        repetition_penalty=draw.choice([1, 1.3, 0.8]),
        presence_penalty=draw.choice([0, 0.7]),
        frequency_penalty=draw.choice([0, -0.4]),
        logit_bias=draw.choice([(), ((3, 5.0), (VOCAB - 1, -100.0))]),
    )
    history = np.array([draw.randrange(VOCAB) for _ in range(draw.randrange(80))], dtype=np.int32)
    settings = DrawSettings(
        params,
        draw.getrandbits(70),
        draw.randrange(3),
        draw.randrange(len(history) + 1),
        draw.choice([None, None, 0, 3]),
        attempt=draw.choice([0, 0, 2]),
    )
    return DrawRow(settings, history)


def random_logits(draw: random.Random, count: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(draw.randrange(2**32))
    scales = np.array([draw.choice([0.3, 2, 8]) for _ in range(count)])
    logits = (generator.normal(0, 1, (count, VOCAB)) * scales[:, None]).astype(np.float32)
    logits[:, draw.randrange(VOCAB)] = -np.inf
    return logits


@pytest.mark.parametrize("isa", ISAS)
def test_the_core_draws_the_tokens_that_numpy_draws(isa: str) -> None:
    executor, draw = executor_with(VOCAB, isa), random.Random(7)
    num_rows = differing = 0
    for _ in range(60):
        rows = [random_row(draw) for _ in range(draw.choice([1, 2, 9]))]
        logits = random_logits(draw, len(rows))
        found, expected = Sampler(executor).sample(logits, rows), Sampler().sample(logits, rows)
        num_rows += len(rows)
        differing += sum(mine.token_id != theirs.token_id for mine, theirs in zip(found, expected, strict=True))
        told = [
            (mine, theirs) for mine, theirs in zip(found, expected, strict=True) if mine.token_id == theirs.token_id
        ]
        assert all(mine == theirs for mine, theirs in told)  # log-probabilities too
    assert differing <= num_rows // 100  # a weight that differs in its last bit may move an edge


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_draws_the_same_in_any_company_and_with_any_threads(isa: str) -> None:
    draw = random.Random(3)
    rows, logits = [random_row(draw) for _ in range(24)], random_logits(draw, 24)
    together = Sampler(executor_with(VOCAB, isa)).sample(logits, rows)
    alone = Sampler(executor_with(VOCAB, isa, num_threads=1))
    assert [alone.sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)] == list(together)


def test_equal_logits_are_taken_by_lower_id() -> None:
    sampler, empty = Sampler(executor_with(VOCAB, ISAS[0])), np.empty(0, dtype=np.int32)
    flat = np.zeros((1, VOCAB), dtype=np.float32)
    assert sampler.sample(flat, [DrawRow(DrawSettings(SamplingParams(temperature=0), 1), empty)])[0].token_id == 0
    for params, most in ((SamplingParams(top_k=3), 2), (SamplingParams(top_p=0.5), VOCAB // 2)):
        drawn = [sampler.sample(flat, [DrawRow(DrawSettings(params, seed), empty)])[0].token_id for seed in range(200)]
        assert max(drawn) <= most
        assert len(set(drawn)) > min(most, 100)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 17, VOCAB - 1])
def test_a_broken_row_fails_alone(bad: float, at: int, isa: str) -> None:
    logits = random_logits(random.Random(1), 3)
    logits[1, at] = bad
    rows = [DrawRow(DrawSettings(SamplingParams(), 5), np.empty(0, dtype=np.int32))] * 3
    before, broken, after = Sampler(executor_with(VOCAB, isa)).sample(logits, rows)
    assert broken.token_id == -1
    assert "logit at position 0" in str(broken.error)
    assert before.error is None
    assert after.error is None


def test_a_row_without_a_drawable_token_fails() -> None:
    row = DrawRow(DrawSettings(SamplingParams(), 1), np.empty(0, dtype=np.int32))
    dead = np.full((1, VOCAB), -np.inf, dtype=np.float32)
    assert Sampler(executor_with(VOCAB, ISAS[0])).sample(dead, [row])[0].error is not None
    dead[0, 4321] = -3e38
    assert Sampler(executor_with(VOCAB, ISAS[0])).sample(dead, [row])[0].token_id == 4321


def test_random_numbers_are_those_of_python() -> None:
    executor = executor_with(64, ISAS[0])
    flat, draw = np.zeros((1, 64), dtype=np.float32), random.Random(11)
    for _ in range(300):
        seed, choice, position = draw.getrandbits(66), draw.randrange(9), draw.randrange(50)
        row = DrawRow(DrawSettings(SamplingParams(), seed, choice), np.zeros(position, dtype=np.int32))
        assert Sampler(executor).sample(flat, [row])[0].token_id == int(uniform(seed, choice, position) * 64)


def test_what_is_not_of_this_model_is_refused() -> None:
    executor = executor_with(64, ISAS[0])
    penalised = DrawSettings(SamplingParams(presence_penalty=1), 1)
    with pytest.raises(EngineError, match="not of this program"):
        executor.draw(np.zeros((1, 65), dtype=np.float32), [penalised.plain], [np.empty(0, dtype=np.int32)])
    with pytest.raises(EngineError, match="outside the vocabulary"):
        executor.draw(np.zeros((1, 64), dtype=np.float32), [penalised.plain], [np.array([64], dtype=np.int32)])
