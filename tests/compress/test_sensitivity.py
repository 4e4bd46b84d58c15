"""The solver against exhaustive search, and mixed precision against uniform formats of the same size."""

import math
from itertools import product

import numpy as np
import pytest

from compress.models import random_windows, uneven_model
from factories.tiny_models import ARCHITECTURES
from vivace.compress.allocate import Option, allocate
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.sensitivity import (
    count_weights,
    formats_of,
    measure_sensitivity,
    mixed_recipe,
    model_parts,
    rounded_lowest,
)
from vivace.compress.timing import FormatTimes, left_for_formats, time_formats, with_times
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat


@pytest.mark.parametrize("seed", range(12))
def test_allocation_is_the_best_there_is(seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = [
        [Option(str(i), int(generator.integers(1, 40)) * 6, float(generator.random())) for i in range(3)]
        for _ in range(6)
    ]
    smallest = sum(min(option.num_bytes for option in options) for options in parts)
    budget = smallest + int(generator.integers(0, 400))
    found = allocate(parts, budget)
    best = min(
        sum(option.loss for option in choice)
        for choice in product(*parts)
        if sum(option.num_bytes for option in choice) <= budget
    )
    assert found.loss == pytest.approx(best)
    assert found.num_bytes <= budget
    assert found.lower_bound <= best + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_two_limits_are_kept_and_the_best_is_found(seed: int) -> None:
    pytest.importorskip("scipy", reason="limits of milliseconds need scipy (extra compress)")
    generator = np.random.default_rng(seed)
    parts = [
        [Option(str(i), int(generator.integers(1, 40)), *(float(v) for v in generator.random(2))) for i in range(3)]
        for _ in range(5)
    ]
    budget = sum(sorted(option.num_bytes for option in options)[1] for options in parts)
    most_ms = sum(sorted(option.milliseconds for option in options)[1] for options in parts)
    found = allocate(parts, budget, most_ms)
    best = min(
        sum(option.loss for option in choice)
        for choice in product(*parts)
        if sum(o.num_bytes for o in choice) <= budget and sum(o.milliseconds for o in choice) <= most_ms
    )
    assert found.loss == pytest.approx(best)
    assert found.num_bytes <= budget
    assert found.milliseconds <= most_ms
    with pytest.raises(ConfigError, match="quickest layout"):
        allocate(parts, budget, 0.0)


def test_coarse_units_keep_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.compress.allocate.MOST_UNITS", 400)
    parts = [[Option("small", 1000, 1.0 + i), Option("large", 2000 + i, 0.1)] for i in range(20)]
    found = allocate(parts, 30_000)
    assert found.num_bytes <= 30_000
    assert found.lower_bound <= found.loss < 1.3 * found.lower_bound


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matrices_without_their_folds_stand_in_the_source(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    recipe = Recipe("r", (TensorRule("*", TensorFormat.Q8_0),), folds=("awq", "smoothquant"), importance=True)
    made = compress_weights(spec, weights, recipe, random_windows(spec, 3))
    moved = 0
    for name in weights.names():
        values = weights.dequantize(name)
        if values.ndim == 2:
            error = np.linalg.norm(made.in_place_of(name) - values) / np.linalg.norm(values)
            assert error < 0.03, name
            moved += np.linalg.norm(made.weights.dequantize(name) - values) / np.linalg.norm(values) > 0.1
    assert moved >= 3 * spec.num_layers  # folds had moved much between matrices


def test_parts_are_measured_as_the_recipe_rounds_them() -> None:
    spec, weights = uneven_model()
    windows = random_windows(spec, 6)
    alone = measure_sensitivity(spec, weights, windows[:3])
    lowest = rounded_lowest(spec, weights, PRESETS["int4"], windows)
    alike = measure_sensitivity(spec, weights, windows[:3], lowest=lowest)
    for before, after in zip(alone, alike, strict=True):
        assert [option.num_bytes for option in before.options] == [option.num_bytes for option in after.options]
    inner = [part.name.startswith("layers.") for part in alone]
    sums = [sum(p.options[0].loss for p, of in zip(parts, inner, strict=True) if of) for parts in (alone, alike)]
    assert sums[1] < 0.8 * sums[0]  # what the recipe's methods save is seen


def test_a_mix_rounds_by_gptq_at_four_bits_only() -> None:
    spec, weights = uneven_model()
    parts = measure_sensitivity(spec, weights, random_windows(spec, 2, 24))
    recipe, _ = mixed_recipe(spec, parts, 5.5, PRESETS["int4"])
    assert {rule.format for rule in recipe.rules} > {TensorFormat.Q4_0}
    for rule in recipe.rules:
        assert rule.rounding == (None if rule.format is TensorFormat.Q4_0 else "nearest")
    assert recipe.rounding == "gptq"


def test_a_rule_may_have_a_rounding_of_its_own() -> None:
    spec, weights = uneven_model()
    windows, format = random_windows(spec, 6), TensorFormat.Q4_0
    made = []
    for rounding, own in (("gptq", None), ("gptq", "nearest"), ("nearest", None)):
        rules = (TensorRule("layers.0.attn.q.weight", format, rounding=own), TensorRule("layers.*", format))
        recipe = Recipe("r", rules, rounding=rounding, importance=True)
        made.append(compress_weights(spec, weights, recipe, windows).weights)
    first, other = ([held.raw(f"layers.0.attn.{name}.weight").tobytes() for held in made] for name in ("q", "k"))
    assert first[0] != first[1] == first[2]
    assert other[0] == other[1] != other[2]
    with pytest.raises(ConfigError, match="rounding 'upwards'"):
        Recipe("r", (TensorRule("layers.*", format, rounding="upwards"),))


def test_a_budget_below_the_smallest_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes 30 bytes"):
        allocate([[Option("a", 10, 1.0)], [Option("a", 20, 1.0)]], 29)


def test_mixed_precision_beats_a_uniform_format_of_the_same_size() -> None:
    spec, weights = uneven_model()
    for layer, scale in ((0, 6.0), (2, 0.05)):  # a layer that matters much, and one that hardly does
        weights.arrays[f"layers.{layer}.mlp.down.weight"] *= np.float32(scale)
    windows = random_windows(spec)
    parts = measure_sensitivity(spec, weights, windows[:3])
    assert [part.name for part in parts] == list(model_parts(spec))
    by_name = {part.name: part.options[0].loss for part in parts}
    assert by_name["layers.0.mlp.down"] > 3 * by_name["layers.2.mlp.down"]
    outlier = next(part for part in parts if part.name == "layers.0.mlp.down")
    assert outlier.collapses
    assert TensorFormat.Q4_0 not in {option.label for option in outlier.bearable}
    assert "times the median of its kind" in outlier.evidence
    base = PRESETS["int4-fast"]
    mixed, allocation = mixed_recipe(spec, parts, 5.5, base)
    assert {rule.format for rule in mixed.rules} > {TensorFormat.Q4_0}
    uniform = type(base)("q5", tuple(type(r)(r.match, TensorFormat.Q5_0) for r in base.rules))
    losses, sizes = [], []
    for recipe in (mixed, uniform):
        compressed = compress_weights(spec, weights, recipe)
        executors = [
            ReferenceExecutor(build_graph(spec), source, num_blocks=3) for source in (weights, compressed.weights)
        ]
        losses.append(compare_executors(executors[0], executors[1], random_windows(spec, seed=5)).mean_kl)
        sizes.append(sum(o.plan.num_bytes for o in compressed.outcomes if len(o.plan.shape) == 2))
    assert sizes[0] == allocation.num_bytes <= sizes[1]
    assert losses[0] < losses[1]
    least = 8 * sum(min(o.num_bytes for o in part.bearable) for part in parts) / count_weights(spec, parts)
    with pytest.raises(ConfigError, match=f"takes {math.ceil(100 * least) / 100:.2f}"):
        mixed_recipe(spec, parts, 4.0)


def test_times_tell_formats_apart_and_a_limit_of_milliseconds_is_kept() -> None:
    pytest.importorskip("scipy", reason="limits of milliseconds need scipy (extra compress)")
    spec, weights = uneven_model()
    parts = measure_sensitivity(spec, weights, random_windows(spec, 2, 24))
    times = time_formats(spec, weights, formats_of(spec), num_threads=1)
    assert min(ms for (where, _), ms in times.extra_ms.items() if where == "layers") == 0
    assert times.quickest_ms > 0
    slow_eight = {
        (at, f): 0.0 if f is formats_of(spec)[0] else 1.0 for at, f in times.extra_ms
    }  # what no machine decides
    known = FormatTimes(2.0, slow_eight, times.num_weights)
    timed = with_times(spec, parts, known)
    needed = sum(min(option.milliseconds for option in part.bearable) for part in timed)
    quick, least = mixed_recipe(spec, timed, None, most_ms=left_for_formats(known, timed, 2.0 + needed + 1e-9))
    assert least.milliseconds == pytest.approx(needed)
    kept = {name for part in timed if part.collapses for name in part.matrices}
    layers = {rule.match: rule.format for rule in quick.rules if rule.match.startswith("layers.")}
    assert {format for name, format in layers.items() if name not in kept} == {formats_of(spec)[0]}
    _, allocation = mixed_recipe(spec, timed, None, most_ms=needed + 0.5)
    assert needed < allocation.milliseconds <= needed + 0.5
    with pytest.raises(ConfigError, match=r"quickest layout takes 2\."):
        left_for_formats(known, timed, 1.0)
