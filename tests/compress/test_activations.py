"""Observers of activations and the grids they are rounded to; what the kernel does is one of these grids."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models import random_windows, uneven_model
from vivace.compress.activation_schemes import DEPLOYED, ActivationScheme
from vivace.compress.activations import (
    InterceptedExecutor,
    quantize_activations,
    simulate,
    whole_batch,
)
from vivace.compress.clipping import RATIOS
from vivace.compress.input_ranges import find_ranges, search_clips
from vivace.compress.observers import OBSERVERS, Observation, find_range
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear
from vivace.types.errors import ConfigError


def heavy_tailed(seed: int = 0, outliers: float = 60.0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((400, 64)).astype(np.float32)
    rows[7, 3] = outliers
    return rows


def error_of(rows: np.ndarray, rule: str, bits: int = 4) -> float:
    seen = Observation()
    seen.add(rows)
    scheme = ActivationScheme(bits, "static", "tensor", observer=rule)
    return float(np.square(quantize_activations(rows, scheme, find_range(seen, rule, bits)) - rows).sum())


def test_rules_that_clip_an_outlier_lose_less_than_the_whole_range() -> None:
    rows = heavy_tailed()
    whole = error_of(rows, "minmax", 8)
    assert error_of(rows, "mse", 8) < whole
    inside = np.delete(rows, 7, axis=0)  # what all other tokens lose
    for rule in ("percentile", "kl", "mse"):
        seen = Observation()
        seen.add(rows)
        low, high = find_range(seen, rule, 4)
        assert high < 0.7 * rows.max(), rule
        scheme = ActivationScheme(4, "static", "tensor")
        clipped = np.square(quantize_activations(inside, scheme, (low, high)) - inside).sum()
        spanned = np.square(quantize_activations(inside, scheme, (float(rows.min()), 60.0)) - inside).sum()
        assert clipped < 0.5 * spanned, rule


def test_least_squares_is_not_beaten_by_any_other_observer() -> None:
    for seed in range(3):
        rows = heavy_tailed(seed, outliers=12.0)
        errors = {rule: error_of(rows, rule) for rule in OBSERVERS}
        assert errors["mse"] <= 1.02 * min(errors.values()), errors


def test_the_moving_average_forgets_and_minmax_does_not() -> None:
    seen = Observation()
    for largest in (50.0, *([1.0] * 40)):
        seen.add(np.array([[largest, -1.0]], np.float32))
    assert find_range(seen, "minmax", 8) == (-1.0, 50.0)
    assert find_range(seen, "moving-average", 8)[1] < 2.0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.0625, 1024, width=32), min_size=1, max_size=8))
def test_a_histogram_keeps_every_value_however_far_it_has_to_reach(peaks: list[float]) -> None:
    seen = Observation()
    for peak in peaks:
        seen.add(np.array([[peak, -peak / 2]], np.float32))
    assert seen.counts.sum() == 2 * len(peaks)
    assert seen.limit > max(peaks)
    top = np.flatnonzero(seen.counts)[-1]
    assert top * seen.limit / len(seen.counts) <= np.float32(max(peaks))


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(2, 8), symmetric=st.booleans(), seed=st.integers(0, 20))
def test_rounding_is_within_half_a_step_and_keeps_zero(bits: int, symmetric: bool, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((5, 64)).astype(np.float32)
    rows[2] = 0
    for granularity in ("tensor", "token", "group"):
        scheme = ActivationScheme(bits, "dynamic", granularity, symmetric)
        found = quantize_activations(rows, scheme)
        steps = (1 << (bits - 1)) - 1
        assert np.abs(found - rows).max() <= 1.01 * np.abs(rows).max() / steps
        assert not found[2].any()


def test_the_deployed_grid_is_the_kernels() -> None:
    assert (DEPLOYED.bits, DEPLOYED.mode, DEPLOYED.granularity) == (8, "dynamic", "group")
    spec, weights = uneven_model()
    graph = build_graph(spec)
    kept = compress_weights(spec, weights, PRESETS["int8"]).weights
    simulated = simulate(graph, kept, DEPLOYED, 48)
    deployed = NativeExecutor(graph, kept, num_blocks=3, activation_bits=8)
    exact = ReferenceExecutor(graph, kept, num_blocks=3)
    windows = random_windows(spec, count=3)
    near = compare_executors(simulated, deployed, windows).mean_kl
    far = compare_executors(exact, deployed, windows).mean_kl
    assert near < 0.2 * far  # what is left is the order of sums and the exponential


def test_static_scales_cost_more_than_dynamic_ones_and_need_calibration() -> None:
    spec, weights = uneven_model()
    graph, windows = build_graph(spec), random_windows(spec, count=3)
    with pytest.raises(ConfigError, match="calibration"):
        simulate(graph, weights, ActivationScheme(8, "static", "tensor"), 48)
    ranges = find_ranges(graph, weights, windows, ActivationScheme(8, "static", "tensor"))
    exact = ReferenceExecutor(graph, weights, num_blocks=3)
    static = simulate(graph, weights, ActivationScheme(8, "static", "tensor"), 48, ranges)
    dynamic = simulate(graph, weights, DEPLOYED, 48)
    lost = [compare_executors(exact, executor, windows).mean_kl for executor in (dynamic, static)]
    assert lost[0] < lost[1]


def test_clips_that_are_searched_lower_the_error_of_what_linears_put_out() -> None:
    spec, weights = uneven_model()
    graph, windows = build_graph(spec), random_windows(spec, count=4)
    scheme = ActivationScheme(4, granularity="token")
    clips = search_clips(graph, weights, windows[:2], scheme)
    assert set(clips) == {op.x for op in graph.ops if isinstance(op, Linear)}
    assert set(clips.values()) <= set(RATIOS) and len(set(clips.values())) > 1
    errors = {}
    for name, ratios in (
        ("whole", dict.fromkeys(clips, 1.0)),
        ("searched", clips),
        ("half", dict.fromkeys(clips, 0.5)),
    ):
        errors[name] = output_errors(graph, weights, windows[:2], scheme, ratios)
    for buffer in clips:  # on the windows that they were searched on, no grid point does better
        assert errors["searched"][buffer] <= min(errors["whole"][buffer], errors["half"][buffer]) * 1.0001
    exact = ReferenceExecutor(graph, weights, num_blocks=3)
    lost = [
        compare_executors(exact, simulate(graph, weights, scheme, 48, clips=ratios), windows[2:]).mean_kl
        for ratios in (None, clips)
    ]
    assert lost[1] < lost[0]


def output_errors(graph, weights, windows, scheme, clips):  # type: ignore[no-untyped-def]
    """Squared errors of all that reads a buffer, with its range cut, by the exact rows of the buffer."""
    found = dict.fromkeys(clips, 0.0)

    def judge(name, rows):  # type: ignore[no-untyped-def]
        error = quantize_activations(rows, replace(scheme, clip=clips[name])) - rows
        readers = [op.weight for op in graph.ops if isinstance(op, Linear) and op.x == name]
        found[name] += sum(float(((error @ weights.dequantize(w).T) ** 2).sum()) for w in readers)
        return rows

    executor = InterceptedExecutor(graph, weights, 48, judge)
    for window in windows:
        executor.forward(replace(whole_batch(window), logit_rows=np.arange(len(window), dtype=np.int32)))
    return found


def test_schemes_that_cannot_be_are_refused() -> None:
    for wrong in ({"mode": "static"}, {"bits": 9}, {"observer": "guess"}, {"granularity": "channel"}, {"clip": 2.0}):
        with pytest.raises(ConfigError):
            ActivationScheme(**wrong)  # type: ignore[arg-type]
