"""The same compression on numpy and on torch: codes and statistics agree to rounding; what is missing is said."""

import importlib.util

import numpy as np
import pytest

from compress.models import random_windows, uneven_model
from factories.tiny_models import ARCHITECTURES
from vivace.compress.arrays import cholesky, invert_upper, like, namespace, on_host
from vivace.compress.device import DEVICES, NumpyDevice, open_device
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.scales import SCALE_RULES, fit_scales
from vivace.compress.schemes import QuantScheme
from vivace.compress.statistics import CalibrationWalk, layer_segments
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
INT3 = (TensorRule("layers.*", TensorFormat.Q4_0, bits=3),)


@needs_torch
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_walk_on_torch_sees_what_numpy_sees(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    graph, windows = build_graph(spec), random_windows(spec, count=2)
    walks = [CalibrationWalk(graph, windows, open_device(name)) for name in ("cpu", "torch")]
    for segment in layer_segments(graph)[:-1]:
        found = [walk.observe(segment, weights.dequantize, lambda name: True) for walk in walks]
        for name, ours in found[0].items():
            theirs = found[1][name]
            assert ours.num_tokens == theirs.num_tokens
            for mine, other in ((ours.squares, theirs.squares), (ours.gram, theirs.gram)):
                np.testing.assert_allclose(on_host(other), mine, rtol=2e-3, atol=2e-3 * float(np.abs(mine).max()))
        for walk in walks:
            walk.advance(segment, weights.dequantize)


@needs_torch
@pytest.mark.parametrize("rounding", ["nearest", "gptq", "descent", "learned"])
def test_every_rounding_on_torch_is_as_good_as_on_numpy(rounding: str) -> None:
    spec, weights = uneven_model()
    windows, recipe = (
        random_windows(spec, count=6),
        Recipe("r", INT3, folds=("awq",), rounding=rounding, importance=True),
    )
    kept = [compress_weights(spec, weights, recipe, windows, device=open_device(n)).weights for n in ("cpu", "torch")]
    same = [
        np.mean(kept[0].raw(name) == kept[1].raw(name)) for name in weights.names() if len(weights.info(name).shape) > 1
    ]
    assert np.mean(same) > 0.9
    exact = ReferenceExecutor(build_graph(spec), weights, num_blocks=3)
    lost = [
        compare_executors(
            exact, ReferenceExecutor(build_graph(spec), held, num_blocks=3), random_windows(spec, seed=9)
        ).mean_kl
        for held in kept
    ]
    assert lost[1] == pytest.approx(lost[0], rel=0.1)


@needs_torch
@pytest.mark.parametrize("kind", ["symmetric", "full_symmetric", "zero_point", "minimum"])
def test_scales_on_torch_are_numpys(kind: str) -> None:
    matrix = np.random.default_rng(0).standard_normal((12, 64)).astype(np.float32)
    placed, importance = open_device("torch").put(matrix), np.linspace(0.1, 2, 64, dtype=np.float32)
    scheme = QuantScheme(4, kind, "group", 32, "F16")  # type: ignore[arg-type]
    for rule in SCALE_RULES:
        ours = fit_scales(matrix, scheme, rule, importance)
        theirs = fit_scales(placed, scheme, rule, like(importance, placed))
        np.testing.assert_allclose(on_host(theirs.scales), ours.scales, rtol=2e-3)
        np.testing.assert_allclose(on_host(theirs.offsets), ours.offsets, rtol=2e-3, atol=2e-3)


@needs_torch
def test_factors_on_torch_are_numpys_and_their_absence_too() -> None:
    half = np.random.default_rng(1).standard_normal((20, 12))
    matrix = half.T @ half
    placed = open_device("torch").put(matrix)
    lower, theirs = cholesky(matrix), cholesky(placed)
    np.testing.assert_allclose(on_host(theirs), lower, rtol=1e-9)
    np.testing.assert_allclose(on_host(invert_upper(theirs.T)), invert_upper(lower.T), rtol=1e-9, atol=1e-12)
    assert cholesky(-matrix) is None
    assert cholesky(-placed) is None
    assert namespace(matrix) is np


def test_numpy_is_the_device_by_default_and_changes_nothing() -> None:
    spec, weights = uneven_model()
    windows = random_windows(spec, count=2)
    kept = [compress_weights(spec, weights, PRESETS["int4"], windows, device=d).weights for d in (None, NumpyDevice())]
    for name in weights.names():
        np.testing.assert_array_equal(kept[0].raw(name), kept[1].raw(name))


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        open_device("tpu")
    assert open_device("cpu").name == "numpy"
    assert open_device("auto").name in ("numpy", "torch-cuda")
    assert set(DEVICES) == {"cpu", "cuda", "torch"}


def test_without_torch_a_device_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs torch"):
        open_device("cuda")
    assert open_device("auto").name == "numpy"
