"""Recipes over whole small models: what methods keep, and that folding changes nothing by itself."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models import random_windows, uneven_model
from factories.tiny_models import ARCHITECTURES, ArrayWeights
from vivace.compress import awq
from vivace.compress.descent import refine
from vivace.compress.drift import DriftSums
from vivace.compress.gptq import gptq
from vivace.compress.hadamard import RotatedWeights, block_hadamard, rotated_spec
from vivace.compress.learned import learned_rounding
from vivace.compress.pipeline import compress_weights
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.refit import refit_scales
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import QuantizedMatrix, QuantScheme
from vivace.compress.statistics import CalibrationWalk, layer_segments
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat, WeightSource

INT3 = (TensorRule("layers.*", TensorFormat.Q4_0, bits=3),)


def divergence(spec: ModelSpec, reference: WeightSource, candidate: WeightSource) -> float:
    executors = [ReferenceExecutor(build_graph(spec), weights, num_blocks=3) for weights in (reference, candidate)]
    return compare_executors(executors[0], executors[1], random_windows(spec, seed=9)).mean_kl


def loss_of(recipe: Recipe, architecture: str = "llama") -> float:
    spec, weights = uneven_model(architecture)
    compressed = compress_weights(spec, weights, recipe, random_windows(spec, count=12))
    return divergence(spec, weights, compressed.weights)


def test_methods_that_look_at_activations_beat_rounding() -> None:
    nearest = loss_of(Recipe("nearest", INT3, scales="minmax"))
    assert loss_of(Recipe("importance", INT3, importance=True)) < 0.9 * nearest
    assert loss_of(Recipe("awq", INT3, folds=("awq",))) < 0.9 * nearest
    assert loss_of(Recipe("gptq", INT3, rounding="gptq")) < 0.95 * nearest
    assert loss_of(Recipe("gptq", INT3, rounding="gptq", act_order=False)) < 0.98 * nearest
    assert loss_of(Recipe("all", INT3, folds=("awq",), rounding="gptq", importance=True)) < 0.7 * nearest


def test_matrices_that_make_up_for_drift_lose_less() -> None:
    steps = {"rounding": "descent", "importance": True}
    plain = loss_of(Recipe("plain", INT3, **steps))
    assert loss_of(Recipe("drift", INT3, **steps, drift_correction=True)) < 0.95 * plain
    assert loss_of(Recipe("both", INT3, **steps, folds=("awq",), drift_correction=True)) < 0.95 * plain


def test_drift_is_made_up_for_where_it_can_be_foretold_and_nowhere_else() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((24, 32)).astype(np.float32)
    source = generator.standard_normal((4000, 32)).astype(np.float32)
    noise = generator.standard_normal(source.shape).astype(np.float32)
    turned = source @ (np.eye(32, dtype=np.float32) + 0.2 * generator.standard_normal((32, 32)).astype(np.float32))
    for drifted, expected in ((turned, 0.1), (source, 1.0)):
        sums = DriftSums()
        sums.add(drifted[:2000], source[:2000])
        moved = sums.moved(matrix)
        losses = [np.square(drifted[2000:] @ of.T - source[2000:] @ matrix.T).sum() for of in (matrix, moved)]
        assert losses[1] <= expected * losses[0]
    unforeseen = DriftSums()  # few tokens, and changes that have nothing to do with them
    unforeseen.add(noise[:60], noise[:60] + source[:60])
    assert np.linalg.norm(unforeseen.moved(matrix) - matrix) < 0.3 * np.linalg.norm(matrix)


def test_every_method_and_their_sums_beat_rounding() -> None:
    nearest = loss_of(Recipe("nearest", INT3, scales="minmax"))
    assert loss_of(Recipe("learned", INT3, scales="minmax", rounding="learned")) < nearest
    assert loss_of(Recipe("smooth", INT3, scales="minmax", folds=("smoothquant",))) < nearest
    several = Recipe("sum", INT3, folds=("hadamard", "awq"), rounding="gptq", importance=True)
    assert loss_of(several) < 0.8 * nearest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_hadamard_rotation_alone_changes_no_logits(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    turned, rotated = rotated_spec(spec), RotatedWeights(spec, weights)
    moved = [name for name in weights.names() if not np.array_equal(rotated.dequantize(name), weights.dequantize(name))]
    assert any(name.endswith("attn.v.weight") for name in moved)
    assert ("layers.0.mlp.down.weight" in moved) == (architecture != "gemma3")
    executors = [
        ReferenceExecutor(build_graph(of), held, num_blocks=3) for of, held in ((spec, weights), (turned, rotated))
    ]
    assert compare_executors(executors[0], executors[1], random_windows(spec, seed=9)).mean_kl < 1e-6


@settings(deadline=None, max_examples=20)
@given(width=st.sampled_from([16, 48, 64, 96, 192, 576]), seed=st.integers(0, 9))
def test_a_block_hadamard_is_a_rotation(width: int, seed: int) -> None:
    turned = block_hadamard(width, seed)
    np.testing.assert_allclose(turned @ turned.T, np.eye(width), atol=1e-5)


def test_bias_correction_takes_the_mean_error_off_the_outputs() -> None:
    spec, weights = uneven_model("qwen2")
    samples = random_windows(spec, count=4)
    errors = []
    for corrected in (False, True):
        recipe = Recipe("b", INT3, scales="minmax", bias_correction=corrected, importance=True)
        kept = compress_weights(spec, weights, recipe, samples).weights
        walks = [CalibrationWalk(build_graph(spec), samples) for _ in range(2)]
        segments = layer_segments(build_graph(spec))
        for walk in walks:
            walk.advance(segments[0], weights.dequantize)
        found = walks[0].observe(segments[1], weights.dequantize, lambda name: False)
        mean = found["layers.0.attn_norm.out"].mean
        name = "layers.0.attn.v."
        outputs = [w.dequantize(f"{name}weight") @ mean + w.dequantize(f"{name}bias") for w in (weights, kept)]
        errors.append(float(np.abs(outputs[0] - outputs[1]).max()))
    assert errors[1] < 0.02 * errors[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_alone_changes_no_logits(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    graph = build_graph(spec)
    arrays = dict(weights.arrays)
    generator = np.random.default_rng(0)
    sites = [site for segment in layer_segments(graph) for site in awq.fold_sites(segment, graph)]
    assert {site.x.rsplit(".", 2)[-2] for site in sites} == {"attn_norm", "mixed", "mlp_norm", "gated"} or len(
        sites
    ) == 4 * spec.num_layers
    for site in sites:
        shared = site.share(np.ones(graph.widths[site.x], np.float32))
        scales = site.spread(np.exp(generator.standard_normal(shared.shape)).astype(np.float32))
        awq.fold(site, scales, arrays.__getitem__, arrays.__setitem__)
    assert divergence(spec, weights, ArrayWeights(arrays)) < 1e-6


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_preset_runs_on_every_architecture(preset: str, architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    compressed = compress_weights(spec, weights, PRESETS[preset], random_windows(spec, count=3))
    assert set(compressed.weights.names()) == set(weights.names())
    for outcome in compressed.outcomes:
        info = compressed.weights.info(outcome.plan.name)
        assert (info.format, info.num_bytes) == (outcome.plan.format, outcome.plan.num_bytes)
    assert divergence(spec, weights, compressed.weights) < 1.6


def test_int8_loses_next_to_nothing() -> None:
    assert loss_of(PRESETS["int8"]) < 0.1 * loss_of(PRESETS["int4"])


def test_a_run_is_reproducible() -> None:
    spec, weights = uneven_model()
    runs = [compress_weights(spec, weights, PRESETS["int4"], random_windows(spec)).weights for _ in range(2)]
    for name in weights.names():
        np.testing.assert_array_equal(runs[0].raw(name), runs[1].raw(name))


def test_the_walk_sees_what_the_executor_computes() -> None:
    spec, weights = uneven_model()
    graph = build_graph(spec)
    walk = CalibrationWalk(graph, random_windows(spec, count=2))
    segments = layer_segments(graph)
    assert len(segments) == spec.num_layers + 2
    for segment in segments[:-1]:
        found = walk.observe(segment, weights.dequantize, lambda name: True)
        for statistics in found.values():
            assert statistics.num_tokens == 96
            assert statistics.gram is not None
            np.testing.assert_allclose(np.diagonal(statistics.gram), statistics.squares, rtol=1e-3)
        walk.advance(segment, weights.dequantize)


def test_gptq_lowers_the_output_error_and_survives_singular_hessians() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((16, 64)).astype(np.float32)
    inputs = (generator.standard_normal((24, 8)) @ generator.standard_normal((8, 64))).astype(np.float32)
    scheme = QuantScheme(3, "full_symmetric", "group", 32, "F16")
    ones = np.ones(64, np.float32)
    errors = {}
    for name, gram in (("gptq", inputs.T @ inputs), ("plain", np.zeros((64, 64), np.float32))):
        for act_order in (True, False):
            found = gptq(matrix, gram, scheme, "minmax", ones, act_order=act_order).dequantize()
            errors[name, act_order] = float(np.square(inputs @ (found - matrix).T).sum())
    assert errors["plain", True] == errors["plain", False]  # no information: plain rounding
    for act_order in (True, False):
        assert errors["gptq", act_order] < 0.3 * errors["plain", True]


def test_learned_rounding_and_coordinate_descent_lower_the_output_error() -> None:
    generator = np.random.default_rng(1)
    matrix = generator.standard_normal((48, 96)).astype(np.float32)
    inputs = (generator.standard_normal((400, 96)) @ generator.standard_normal((96, 96))).astype(np.float32)
    gram, scheme, ones = (
        inputs.T @ inputs,
        QuantScheme(3, "full_symmetric", "group", 32, "F16"),
        np.ones(96, np.float32),
    )
    affine = fit_scales(matrix, scheme, "minmax")
    nearest, chosen = quantize_matrix(matrix, scheme, affine), gptq(matrix, gram, scheme, "minmax", ones)
    learned = learned_rounding(matrix, gram, scheme, affine)

    def error(found: QuantizedMatrix) -> float:
        return float(np.square(inputs @ (found.dequantize() - matrix).T).sum())

    assert error(learned) < 0.8 * error(nearest)
    assert error(refine(chosen, matrix, gram)) < 0.98 * error(chosen)
    assert error(refine(learned, matrix, gram)) < 0.8 * error(learned)
    assert np.abs(learned.codes - nearest.codes).max() <= 1
    for start in (nearest, chosen):
        refitted = refit_scales(start, matrix, gram)
        assert error(refitted) < 0.97 * error(start)
        np.testing.assert_array_equal(refitted.codes, start.codes)


def test_what_cannot_work_is_refused_before_the_run() -> None:
    spec, weights = uneven_model()
    with pytest.raises(ConfigError, match="calibration text"):
        compress_weights(spec, weights, PRESETS["int4"])
    groups = Recipe("g", (TensorRule("layers.*", TensorFormat.Q4_0, group_size=128),))
    with pytest.raises(ConfigError, match="Choose a group size of 32, 64"):
        compress_weights(spec, weights, groups)
    k_quant = Recipe("k", (TensorRule("layers.*", TensorFormat.Q4_K),))
    with pytest.raises(ConfigError, match="does not write Q4_K"):
        compress_weights(spec, weights, k_quant)


def test_rows_that_blocks_do_not_divide_are_kept_and_said() -> None:
    from factories.tiny_models import random_weights, tiny_spec

    spec = replace(tiny_spec(), hidden_size=48)
    weights = random_weights(spec)
    compressed = compress_weights(spec, weights, PRESETS["int4-fast"])
    plan = next(outcome.plan for outcome in compressed.outcomes if outcome.plan.name == "layers.0.attn.q.weight")
    assert plan.format == TensorFormat.F16
    assert "kept as F16" in plan.note
