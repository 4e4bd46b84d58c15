"""Scoring counts the tokens llama.cpp counts, whatever the executor's step size, and notices a worse executor."""

import math

import numpy as np
import pytest

from factories.greedy import blocks_for, make_batch
from factories.tiny_models import random_weights, tiny_spec
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import (
    compare_executors,
    cut_windows,
    iterate_logits,
    log_softmax,
    score_of,
    score_windows,
    window_log_probabilities,
)
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError

SIZE = 48


def executor_with(*, seed: int = 0, max_rows: int = 512, num_blocks: int = 3) -> ReferenceExecutor:
    spec = tiny_spec()
    return ReferenceExecutor(build_graph(spec), random_weights(spec, seed), num_blocks=num_blocks, max_rows=max_rows)


def text(length: int = 3 * SIZE + 5) -> list[int]:
    return np.random.default_rng(3).integers(0, 97, length).tolist()


def test_windows_follow_one_another_and_begin_with_bos() -> None:
    ids = text()
    windows = cut_windows(ids, SIZE, None, None)
    assert [w.tolist() for w in windows] == [ids[:SIZE], ids[SIZE : 2 * SIZE], ids[2 * SIZE : 3 * SIZE]]
    with_bos = cut_windows(ids, SIZE, 2, 96)
    assert [w.tolist() for w in with_bos] == [[96, *ids[1:SIZE]], [96, *ids[SIZE + 1 : 2 * SIZE]]]


@pytest.mark.parametrize(("length", "count"), [(10, None), (100, 3), (100, 0)])
def test_a_text_too_short_for_its_windows_is_refused(length: int, count: int | None) -> None:
    with pytest.raises(ConfigError, match=f"{length} tokens"):
        cut_windows(text(length), SIZE, count, None)


def test_log_probabilities_are_those_of_one_whole_forward() -> None:
    window = cut_windows(text(), SIZE, 1, None)[0]
    logits = executor_with().forward(make_batch([(0, window.tolist(), 0)], 1, blocks_for(SIZE), all_logits=True))
    expected = log_softmax(logits)[np.arange(24, SIZE - 1), window[25:]]
    np.testing.assert_allclose(window_log_probabilities(executor_with(), window, 24), expected, atol=1e-5)


def test_the_second_half_of_each_window_is_scored() -> None:
    score = score_windows(executor_with(), cut_windows(text(), SIZE, None, None))
    assert score.num_tokens == 3 * (SIZE - SIZE // 2 - 1)
    assert score.perplexity == pytest.approx(math.exp(score.mean_nll))


@pytest.mark.parametrize("max_rows", [1, 5, 24, 30])
def test_the_step_size_does_not_matter(max_rows: int) -> None:
    windows = cut_windows(text(), SIZE, None, None)
    expected = score_windows(executor_with(), windows)
    found = score_windows(executor_with(max_rows=max_rows), windows)
    assert found.mean_nll == pytest.approx(expected.mean_nll, rel=1e-6)


def test_logits_come_for_each_position_once() -> None:
    window = cut_windows(text(), SIZE, 1, None)[0]
    slices = [(at.start, at.stop) for at, _ in iterate_logits(executor_with(), window, 10, logit_rows=16)]
    assert slices == [(10, 26), (26, 42), (42, 48)]


def test_a_window_over_the_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 KV blocks; the executor has 2"):
        score_windows(executor_with(num_blocks=2), cut_windows(text(), SIZE, 1, None))


def test_a_model_of_no_opinion_has_the_vocabulary_as_perplexity() -> None:
    spec = tiny_spec()
    weights = random_weights(spec)
    weights.arrays["lm_head.weight"][:] = 0
    executor = ReferenceExecutor(build_graph(spec), weights, num_blocks=3)
    assert score_windows(executor, cut_windows(text(), SIZE, None, None)).perplexity == pytest.approx(97.0)


def test_the_standard_error_is_that_of_the_mean() -> None:
    score = score_of(-np.array([1.0, 2.0, 3.0, 4.0]))
    assert (score.num_tokens, score.mean_nll) == (4, 2.5)
    assert score.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)


def test_an_executor_agrees_with_itself_and_less_with_another() -> None:
    windows = cut_windows(text(), SIZE, None, None)
    same = compare_executors(executor_with(), executor_with(max_rows=7), windows)
    assert same.num_positions == 3 * SIZE // 2
    assert same.same_top == 1.0
    assert same.largest_kl < 1e-9
    assert same.mean_absolute_error < 1e-5
    other = compare_executors(executor_with(), executor_with(seed=1), windows)
    assert other.same_top < 0.5
    assert other.mean_kl > 0.1
    assert other.largest_kl > other.mean_kl


def test_kl_is_measured_from_the_reference() -> None:
    spec = tiny_spec()
    flat_weights = random_weights(spec)
    flat_weights.arrays["lm_head.weight"][:] = 0
    flat = ReferenceExecutor(build_graph(spec), flat_weights, num_blocks=3)
    window = cut_windows(text(), SIZE, 1, None)
    found = compare_executors(executor_with(), flat, window).mean_kl
    logits = np.concatenate([logits for _, logits in iterate_logits(executor_with(), window[0], SIZE // 2)])
    log_p = log_softmax(logits)
    assert found == pytest.approx(np.mean(np.sum(np.exp(log_p) * (log_p + math.log(97)), axis=1)))
