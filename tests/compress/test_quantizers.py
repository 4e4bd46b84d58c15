"""Quantisers against the formulas of the chapter and against exhaustive facts about grids."""

from typing import cast, get_args

import numpy as np
import pytest

from vivace.compress.quantizers import quantize_matrix
from vivace.compress.scales import SCALE_RULES, fit_scales
from vivace.compress.schemes import Floats, Granularity, GridKind, QuantScheme
from vivace.types.errors import ConfigError

KINDS = cast(tuple[GridKind, ...], tuple(kind for kind in get_args(GridKind) if kind != "nested"))
"""Without nested codes, which have a file of their own."""


def random_matrix(rows: int = 8, columns: int = 64, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def quantization_error(matrix: Floats, scheme: QuantScheme, rule: str, importance: Floats | None = None) -> float:
    quantized = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule, importance)).dequantize()
    weights = 1.0 if importance is None else importance
    return float((weights * (quantized - matrix) ** 2).sum())


def test_exercise_3_of_the_chapter() -> None:
    weights = np.array([[-2.5, 3.2, 0.15]], dtype=np.float32)
    scheme = QuantScheme(bits=8)
    quantized = quantize_matrix(weights, scheme, fit_scales(weights, scheme, "minmax"))
    assert quantized.affine.scales[0, 0] == pytest.approx(3.2 / 127)
    assert quantized.affine.scales[0, 0] == pytest.approx(0.0252, abs=5e-5)
    assert quantized.codes[0, 2] == 6
    assert abs(quantized.dequantize()[0, 2] - 0.15) == pytest.approx(0.0012, abs=5e-5)


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_no_unclipped_weight_is_further_off_than_half_a_step(
    bits: int, kind: GridKind, granularity: Granularity
) -> None:
    matrix = random_matrix()
    scheme = QuantScheme(bits, kind, granularity, 16 if granularity == "group" else None)
    affine = fit_scales(matrix, scheme, "minmax")
    quantized = quantize_matrix(matrix, scheme, affine)
    assert quantized.codes.min() >= scheme.low
    assert quantized.codes.max() <= scheme.high
    groups = scheme.grouped(matrix)
    reach = np.stack([code * affine.scales + affine.offsets for code in (scheme.low, scheme.high)])
    inside = (groups >= reach.min(0)[:, :, None]) & (groups <= reach.max(0)[:, :, None])
    distance = np.abs(scheme.grouped(quantized.dequantize()) - groups) / np.abs(affine.scales[:, :, None])
    assert distance[inside].max() <= 0.5 + 1e-4
    assert inside.mean() > 0.85


@pytest.mark.parametrize("kind", ["symmetric", "full_symmetric", "zero_point"])
def test_zero_stays_zero(kind: GridKind) -> None:
    matrix = random_matrix() + 1.0
    matrix[:, 5] = 0
    scheme = QuantScheme(4, kind, "group", 32)
    for rule in SCALE_RULES:
        assert (quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule)).dequantize()[:, 5] == 0).all()


def test_zero_points_are_codes() -> None:
    matrix = np.abs(random_matrix())
    scheme = QuantScheme(8, "zero_point", "channel")
    points = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "minmax")).zero_points
    assert points is not None
    assert (points == 0).all()
    assert quantize_matrix(matrix, QuantScheme(8), fit_scales(matrix, QuantScheme(8), "minmax")).zero_points is None


def test_an_asymmetric_grid_uses_a_one_sided_range_better() -> None:
    matrix = np.abs(random_matrix())
    errors = {kind: quantization_error(matrix, QuantScheme(4, kind), "minmax") for kind in ("symmetric", "zero_point")}
    assert errors["zero_point"] < errors["symmetric"] / 2


def test_finer_granularity_never_hurts() -> None:
    matrix = random_matrix() * np.linspace(0.1, 3, 8, dtype=np.float32)[:, None]
    tensor, channel, group = (
        quantization_error(matrix, scheme, "minmax")
        for scheme in (QuantScheme(4, granularity="tensor"), QuantScheme(4), QuantScheme(4, "symmetric", "group", 16))
    )
    assert group < channel < tensor


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_clipping_beats_the_whole_range(kind: GridKind, bits: int) -> None:
    scheme = QuantScheme(bits, kind, "group", 32, "F16")
    assert quantization_error(random_matrix(), scheme, "mse") < quantization_error(random_matrix(), scheme, "minmax")


def test_eight_bits_gain_by_a_scale_whose_steps_meet_the_weights() -> None:
    scheme = QuantScheme(8, "symmetric", "group", 32, "F16")
    dense = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    coarse = np.float32(0.013) * np.random.default_rng(4).integers(-7, 8, (64, 256)).astype(np.float32)
    assert quantization_error(dense, scheme, "mse") < 0.85 * quantization_error(dense, scheme, "minmax")
    assert quantization_error(coarse, scheme, "mse") < 0.1 * quantization_error(coarse, scheme, "minmax")


def test_importance_moves_the_error_to_columns_that_matter_less() -> None:
    matrix = random_matrix(64)
    importance = np.random.default_rng(1).gamma(0.2, 1.0, 64).astype(np.float32)
    scheme = QuantScheme(3, "full_symmetric", "group", 32, "F16")
    plain = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "mse"))
    weighted = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "mse", importance))
    loss = [float((importance * (q.dequantize() - matrix) ** 2).sum()) for q in (plain, weighted)]
    assert loss[1] < 0.8 * loss[0]


@pytest.mark.parametrize("weighed", [False, True])
def test_eight_bit_weights_that_lie_on_the_grid_stay_to_the_bit(weighed: bool) -> None:
    scheme = QuantScheme(8, "symmetric", "group", 32, scale_type="F16")
    rng = np.random.default_rng(3)
    start = random_matrix(256, 576, seed=1)
    on_grid = quantize_matrix(start, scheme, fit_scales(start, scheme, "minmax")).dequantize()
    importance = np.exp(3 * rng.standard_normal(576)).astype(np.float32) if weighed else None
    again = quantize_matrix(on_grid, scheme, fit_scales(on_grid, scheme, "mse", importance)).dequantize()
    np.testing.assert_array_equal(again, on_grid)


def test_a_percentile_ignores_an_outlier() -> None:
    matrix = random_matrix(1, 4096)
    matrix[0, 0] = 1000
    scheme = QuantScheme(8)
    assert fit_scales(matrix, scheme, "percentile").scales[0, 0] < 0.1
    assert fit_scales(matrix, scheme, "minmax").scales[0, 0] == pytest.approx(1000 / 127)


def test_groups_of_zeros_and_of_equal_weights_are_kept() -> None:
    matrix = np.concatenate([np.zeros((2, 32)), np.full((2, 32), 0.5)]).astype(np.float32)
    for kind in KINDS:
        for rule in SCALE_RULES:
            scheme = QuantScheme(4, kind, "group", 32, "F16")
            found = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule)).dequantize()
            np.testing.assert_allclose(found, matrix, atol=2e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QuantScheme(9), "2 to 8"),
        (lambda: QuantScheme(1), "2 to 8"),
        (lambda: QuantScheme(4, granularity="group"), "group size"),
        (lambda: QuantScheme(4, group_size=32), "group size"),
        (lambda: QuantScheme(4, "symmetric", "group", 128).grouped(random_matrix(2, 576)), "do not divide"),
        (lambda: fit_scales(random_matrix(), QuantScheme(4), "best"), "no scale rule"),
        (lambda: fit_scales(random_matrix() * np.float32(np.nan), QuantScheme(4), "mse"), "not a number"),
    ],
)
def test_what_cannot_work_is_refused_in_words(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()  # type: ignore[operator]
