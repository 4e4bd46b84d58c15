"""Methods of one recipe together, on a trained model of one megabyte: rotations, folds, roundings, corrections."""

from itertools import product

import pytest

from compress.llama2c import find_stories, read_llama2c
from factories.tiny_models import ArrayWeights
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule
from vivace.compress.self_text import blocks_needed, write_samples
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import Tokens, compare_executors
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat

FOLDS: tuple[tuple[str, ...], ...] = (("hadamard",), ("smoothquant",), ("hadamard", "awq"), ("smoothquant", "awq"))
ROUNDINGS = ("nearest", "gptq", "descent", "learned")
Stories = tuple[ModelSpec, ArrayWeights, ReferenceExecutor, list[Tokens]]


@pytest.fixture(scope="module")
def stories() -> Stories:
    spec, weights = read_llama2c(find_stories())
    executor = ReferenceExecutor(build_graph(spec), weights, num_blocks=8)
    settings = CalibrationSettings(samples=10, tokens=64)
    writer = ReferenceExecutor(build_graph(spec), weights, num_blocks=blocks_needed(settings))
    return spec, weights, executor, write_samples(writer, settings, bos_id=1)


def loss_of(stories: Stories, recipe: Recipe) -> float:
    spec, weights, executor, samples = stories
    made = compress_weights(spec, weights, recipe, samples[:7])
    candidate = ReferenceExecutor(build_graph(made.spec), made.weights, num_blocks=8)
    return compare_executors(executor, candidate, samples[7:]).mean_kl


@pytest.fixture(scope="module")
def nearest(stories: Stories) -> dict[int, float]:
    """What rounding to nearest loses, by bits."""
    return {bits: loss_of(stories, Recipe("n", rules(bits), scales="minmax")) for bits in (2, 3)}


def rules(bits: int) -> tuple[TensorRule, ...]:
    return (TensorRule("layers.*", TensorFormat.Q4_0, bits=bits),)


@pytest.mark.parametrize(("folds", "rounding"), list(product(FOLDS, ROUNDINGS)))
def test_every_fold_goes_with_every_rounding_and_all_beat_the_nearest(
    stories: Stories, nearest: dict[int, float], folds: tuple[str, ...], rounding: str
) -> None:
    recipe = Recipe("r", rules(3), folds=folds, rounding=rounding, importance=True, bias_correction=True)
    assert loss_of(stories, recipe) < nearest[3]


@pytest.mark.parametrize("folds", [(), ("hadamard",), ("hadamard", "smoothquant", "awq")])
def test_drift_is_corrected_behind_folds(stories: Stories, nearest: dict[int, float], folds: tuple[str, ...]) -> None:
    recipe = Recipe("r", rules(3), folds=folds, rounding="descent", importance=True, drift_correction=True)
    assert loss_of(stories, recipe) < 0.7 * nearest[3]


def test_two_bits_lose_more_and_methods_bring_some_of_it_back(stories: Stories, nearest: dict[int, float]) -> None:
    assert nearest[2] > nearest[3]
    recipe = Recipe("r", rules(2), folds=("awq",), rounding="gptq", importance=True)
    assert loss_of(stories, recipe) < 0.9 * nearest[2]


def test_a_head_that_a_rotation_makes_is_stored_as_the_embedding_is(stories: Stories) -> None:
    spec, weights, _, samples = stories
    both = (TensorRule("layers.*", TensorFormat.Q4_0), TensorRule("embed.weight", TensorFormat.Q8_0))
    made = compress_weights(spec, weights, Recipe("r", both, folds=("hadamard",)), samples)
    assert made.weights.info("lm_head.weight").format is TensorFormat.Q8_0
    kept = compress_weights(spec, weights, Recipe("r", both[:1], folds=("hadamard",)), samples)
    notes = {outcome.plan.name: outcome.plan.note for outcome in kept.outcomes if outcome.plan.format is None}
    assert set(notes) == {"embed.weight", "lm_head.weight"}
    assert all("kept in float32: a rotation has changed it" in note for note in notes.values())


def test_folds_that_cannot_be_put_together_are_refused() -> None:
    for folds in (("awq", "hadamard"), ("awq", "awq"), ("smoothquant", "hadamard")):
        with pytest.raises(ConfigError, match="cannot be done") as refused:
            Recipe("r", rules(3), folds=folds)
        assert "hadamard first" in refused.value.mend
