"""The sampler draws from the distribution its parameters define, and from nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sample.naive import adjusted, distribution
from vivace.sample.randomness import uniform
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.types.request import SamplingParams
from vivace.types.step import Draw

EMPTY = np.zeros(0, dtype=np.int32)


def logits_of(seed: int, vocab_size: int, scale: float = 3.0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, vocab_size).astype(np.float32)


def draw_one(logits: NDArray[np.float32], params: SamplingParams, seed: int = 0, **others: int) -> Draw:
    (drawn,) = Sampler().sample(logits[None], [DrawRow(DrawSettings(params, seed, **others), EMPTY)])
    return drawn


def draw_many(logits: NDArray[np.float32], params: SamplingParams, count: int) -> NDArray[np.int64]:
    tokens = [draw_one(logits, params, seed).token_id for seed in range(count)]
    return np.bincount(tokens, minlength=len(logits))


def chi_squared(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> tuple[float, int]:
    """The statistic and its degrees of freedom, with cells under 5 expected merged into one."""
    big = expected >= 5
    cells = [(observed[big], expected[big])]
    if (rest := expected[~big].sum()) > 0:
        cells.append((observed[~big].sum(keepdims=True), np.array([rest])))
    seen, wanted = (np.concatenate(column) for column in zip(*cells, strict=True))
    return float(((seen - wanted) ** 2 / wanted).sum()), len(seen) - 1


def assert_fits(observed: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
    assert observed[probabilities == 0].sum() == 0
    statistic, freedom = chi_squared(observed, probabilities * observed.sum())
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 5  # five standard deviations


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=2.0),
        SamplingParams(top_k=5),
        SamplingParams(top_p=0.8),
        SamplingParams(min_p=0.05),
        SamplingParams(top_k=20, top_p=0.9, min_p=0.02, temperature=0.7),
        SamplingParams(top_p=0.95, min_p=0.01),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    logits = logits_of(1, 64)
    expected = distribution([float(value) for value in logits], params)
    assert_fits(draw_many(logits, params, 4000), expected)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(min_p=0.3)])
def test_draws_over_many_segments_follow_the_distribution(params: SamplingParams) -> None:
    logits = logits_of(2, 5000, scale=0.5)
    expected = distribution([float(value) for value in logits], params)
    observed = draw_many(logits, params, 3000)
    halves = [slice(0, 1700), slice(1700, 3333), slice(3333, 5000)]
    assert observed[expected == 0].sum() <= 1  # float32 may put one token more at the edge of the nucleus
    merged = np.array([observed[half].sum() for half in halves])
    assert_fits(merged, np.array([expected[half].sum() for half in halves]))


PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0.05, 2),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
    repetition_penalty=st.floats(0.5, 2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, 29), st.floats(-100, 100), max_size=3).map(lambda d: tuple(d.items())),
)


@given(PARAMS, st.lists(st.integers(0, 29), max_size=40), st.integers(0, 40), st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_a_drawn_token_is_possible_in_the_naive_twin(
    params: SamplingParams, tokens: list[int], num_prompt: int, seed: int
) -> None:
    logits = logits_of(seed % 1000, 30)
    row = DrawRow(DrawSettings(params, seed, 0, min(num_prompt, len(tokens))), np.array(tokens, dtype=np.int32))
    (drawn,) = Sampler().sample(logits[None], [row])
    expected = distribution(adjusted(logits, tokens, row.settings.num_prompt, params), params)
    assert expected[drawn.token_id] > 0 or _is_at_an_edge(expected, logits, tokens, row, drawn.token_id)


def _is_at_an_edge(
    expected: NDArray[np.float64], logits: NDArray[np.float32], tokens: list[int], row: DrawRow, token: int
) -> bool:
    """Whether the token's value ties, within float32, with one that the twin keeps."""
    values = adjusted(logits, tokens, row.settings.num_prompt, row.settings.params)
    kept = [values[other] for other in np.flatnonzero(expected)]
    return any(math.isclose(values[token], value, rel_tol=1e-4, abs_tol=1e-4) for value in kept)


@given(st.integers(0, 2**32), st.integers(2, 300))
@settings(max_examples=100, deadline=None)
def test_greedy_takes_the_largest_and_the_first_of_equals(seed: int, vocab_size: int) -> None:
    logits = np.round(logits_of(seed, vocab_size)).astype(np.float32)
    assert draw_one(logits, SamplingParams(temperature=0)).token_id == int(np.argmax(logits))
    assert draw_one(logits, SamplingParams(top_k=1), seed).token_id == int(np.argmax(logits))


def test_equal_logits_at_the_edge_of_top_k_are_taken_by_lower_id() -> None:
    observed = draw_many(np.zeros(10, dtype=np.float32), SamplingParams(top_k=3), 500)
    assert np.flatnonzero(observed).tolist() == [0, 1, 2]


@pytest.mark.parametrize("vocab_size", [10, 5000])
def test_equal_logits_at_the_edge_of_the_nucleus_are_taken_by_lower_id(vocab_size: int) -> None:
    observed = draw_many(np.zeros(vocab_size, dtype=np.float32), SamplingParams(top_p=0.5), 300)
    assert np.flatnonzero(observed).max() < vocab_size // 2


def test_a_draw_does_not_depend_on_its_company() -> None:
    logits = np.stack([logits_of(row, 2000) for row in range(6)])
    kinds = [SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_k=9, repetition_penalty=1.3)]
    rows = [
        DrawRow(DrawSettings(kinds[row % 3], row, num_logprobs=row % 2), np.arange(row, dtype=np.int32))
        for row in range(6)
    ]
    together = Sampler().sample(logits, rows)
    alone = [Sampler().sample(logits[row : row + 1], [rows[row]])[0] for row in range(6)]
    assert list(together) == alone


def test_logprobs_are_those_of_the_raw_distribution() -> None:
    logits = logits_of(5, 100)
    params = SamplingParams(temperature=0.3, top_k=2, logit_bias=((7, 100.0),))
    logprob = draw_one(logits, params, num_logprobs=4).logprob
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert logprob is not None
    assert logprob.token_id == 7
    assert logprob.logprob == pytest.approx(expected[7], abs=1e-5)
    best = np.argsort(-logits, kind="stable")[:4]
    assert [token for token, _ in logprob.top] == best.tolist()
    assert [value for _, value in logprob.top] == pytest.approx(expected[best].tolist(), abs=1e-5)
    assert draw_one(logits, params).logprob is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_row_fails_alone(bad: float) -> None:
    logits = np.stack([logits_of(0, 50), logits_of(1, 50)])
    logits[0, 33] = bad
    rows = [DrawRow(DrawSettings(SamplingParams(), 1), EMPTY)] * 2
    broken, sound = Sampler().sample(logits, rows)
    assert broken.token_id == -1
    assert "logit at position 0" in str(broken.error)
    assert sound == draw_one(logits[1], SamplingParams(), 1)


def test_minus_infinity_is_a_token_that_cannot_be_drawn() -> None:
    logits = np.full(3000, -np.inf, dtype=np.float32)
    logits[[4, 2999]] = 1.0
    for params in (SamplingParams(), SamplingParams(top_k=50), SamplingParams(top_p=0.99), SamplingParams(min_p=0.1)):
        assert np.flatnonzero(draw_many(logits, params, 50)).tolist() == [4, 2999]
    assert draw_one(np.full(9, -np.inf, dtype=np.float32), SamplingParams()).error is not None


def test_extreme_logits_and_temperatures_are_drawn_without_warnings() -> None:
    logits = np.array([3e38, -3e38, 0, 3e38], dtype=np.float32)
    for temperature in (1e-9, 1e-4, 1.0, 2.0):
        assert draw_one(logits, SamplingParams(temperature=temperature), 3).token_id in (0, 3)


def test_the_executors_buffer_is_left_as_it_was() -> None:
    logits = logits_of(0, 60)
    before = logits.copy()
    draw_one(logits, SamplingParams(logit_bias=((1, 5.0),), min_p=0.2, top_p=0.9), num_logprobs=3)
    assert np.array_equal(before, logits)


def test_uniform_numbers_fill_the_unit_interval_evenly_in_every_argument() -> None:
    streams = {
        "seed": [uniform(seed, 0, 0) for seed in range(20_000)],
        "choice": [uniform(1, choice, 0) for choice in range(20_000)],
        "position": [uniform(1, 0, position) for position in range(20_000)],
    }
    for numbers in streams.values():
        assert 0 <= min(numbers) < max(numbers) < 1
        counts = np.bincount((np.array(numbers) * 100).astype(int), minlength=100)
        assert_fits(counts, np.full(100, 0.01))
        pairs = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
        assert abs(pairs) < 0.03


def test_seeds_choices_and_positions_do_not_stand_in_for_each_other() -> None:
    keys = [(seed, choice, position) for seed in range(12) for choice in range(12) for position in range(12)]
    assert len({uniform(*key) for key in keys}) == len(keys)
    assert uniform(5, 0, 0) == uniform(5 + 2**64, 0, 0)
