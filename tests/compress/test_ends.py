"""The head, rounded for what it reads, and the embedding that is the head too."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from compress.models import random_windows, uneven_model
from vivace.compress import ends
from vivace.compress.containers import container_of
from vivace.compress.ends import EMBEDDING, round_in_pieces, with_ridge
from vivace.compress.gptq import factorize
from vivace.compress.methods import RoundingTask
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.scales import SCALE_RULES
from vivace.compress.statistics import InputStatistics
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.types.weights import TensorFormat

RULES = {name: (TensorRule(name, TensorFormat.Q4_0),) for name in ("embed.weight", "lm_head.weight")}


@pytest.mark.parametrize("architecture", ["gemma3", "llama"])
def test_a_head_that_is_rounded_for_its_inputs_loses_less(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    weights.arrays["final_norm.weight"] = np.exp(
        1.2 * np.random.default_rng(7).standard_normal(spec.hidden_size)
    ).astype(np.float32)
    windows = random_windows(spec, count=8)
    head = Recipe("head", RULES["embed.weight" if spec.tied_embeddings else "lm_head.weight"])
    exact = ReferenceExecutor(build_graph(spec), weights, num_blocks=3)
    lost = {}
    for name, recipe in (
        ("nearest", head),
        ("weighed", replace(head, importance=True)),
        ("gptq", replace(head, importance=True, rounding="gptq")),
    ):
        found = compress_weights(spec, weights, recipe, windows[:5] if recipe.importance else ())
        rounded = ReferenceExecutor(build_graph(spec), found.weights, num_blocks=3)
        lost[name] = compare_executors(exact, rounded, windows[5:]).mean_kl
    assert lost["weighed"] < 0.9 * lost["nearest"]
    assert lost["gptq"] < 0.9 * lost["nearest"]


@pytest.mark.parametrize("format", [TensorFormat.Q8_0, TensorFormat.Q4_0, TensorFormat.Q4_1, TensorFormat.N8_0])
@pytest.mark.parametrize("rule", sorted(SCALE_RULES))
def test_rows_that_stay_in_the_cache_are_rounded_to_the_bit_as_all_together(
    format: TensorFormat, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((200, 64)).astype(np.float32)
    importance = np.exp(random.standard_normal(64)).astype(np.float32)
    task = RoundingTask(values, container_of(format).scheme(), rule, importance, None, lambda: None)  # type: ignore[arg-type, return-value]
    whole = round_in_pieces("nearest", task, lambda rows: rows)
    monkeypatch.setattr(ends, "_CACHED_WEIGHTS", 64 * 7)
    pieces = round_in_pieces("nearest", task, lambda rows: rows)
    np.testing.assert_array_equal(whole.codes, pieces.codes)
    np.testing.assert_array_equal(whole.affine.scales, pieces.affine.scales)
    np.testing.assert_array_equal(whole.affine.offsets, pieces.affine.offsets)


def test_a_vocabulary_does_not_set_the_memory_of_a_run() -> None:
    values = np.random.default_rng(2).standard_normal((20_000, 64)).astype(np.float32)
    task = RoundingTask(values, container_of(TensorFormat.Q8_0).scheme(), "mse", None, None, lambda: None)  # type: ignore[arg-type, return-value]
    tracemalloc.start()
    round_in_pieces("nearest", task, lambda rows: rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pieces = 14 * ends._CACHED_WEIGHTS  # bytes: what the search for scales holds of one piece
    assert peak < 5 * values.size + pieces


def test_rows_in_pieces_get_the_codes_that_they_get_together(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    inputs = InputStatistics(64, wants_gram=True)
    inputs.add(random.standard_normal((200, 64)).astype(np.float32) * np.exp(random.standard_normal(64)).astype("f4"))
    mixed = with_ridge(inputs, EMBEDDING)
    assert with_ridge(inputs, "lm_head.weight") is inputs
    assert mixed.importance.min() > inputs.importance.min()
    values = random.standard_normal((50, 64)).astype(np.float32)
    scheme = container_of(TensorFormat.Q5_1).scheme()
    task = RoundingTask(
        values,
        scheme,
        "mse",
        mixed.importance,
        mixed,
        lambda: factorize(mixed.gram, act_order=True),  # type: ignore[arg-type]
    )
    whole = round_in_pieces("gptq", task, lambda rows: rows)
    monkeypatch.setattr(ends, "_ROWS", 7)
    pieces = round_in_pieces("gptq", task, lambda rows: rows)
    assert np.abs(whole.codes - pieces.codes).max() <= 1  # sums of other lengths may round the last bit another way
    assert (whole.codes == pieces.codes).mean() > 0.99
    np.testing.assert_allclose(whole.affine.scales, pieces.affine.scales, rtol=1e-3)
