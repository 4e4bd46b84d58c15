"""Scales of nested codes: chosen so that the high halves alone are good, at little cost to all eight bits."""

import numpy as np
import pytest

from vivace.compress.containers import pack_matrix
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import QuantScheme
from vivace.numerics import nested
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat


def errors(rule: str) -> tuple[float, float]:
    """Errors of the high halves and of all bits, weighed by the columns' importance, rounded by a rule."""
    draw = np.random.default_rng(3)
    weights = draw.normal(0, 1, (64, 192)).astype(np.float32)
    importance = draw.lognormal(0, 1.5, 192).astype(np.float32)
    scheme = QuantScheme(8, "nested", "group", 32, "F16")
    matrix = quantize_matrix(weights, scheme, fit_scales(weights, scheme, rule, importance))
    blocks = pack_matrix(matrix, TensorFormat.N8_0).reshape(-1, nested.BLOCK_BYTES)
    high, full = (importance * (read(blocks).reshape(weights.shape) - weights) ** 2 for read in READERS)
    return float(high.sum()), float(full.sum())


READERS = (nested.decode_high, nested.decode)


def test_least_squares_helps_the_high_halves_and_leaves_all_bits_far_ahead() -> None:
    (plain_high, plain_full), (high, full) = errors("minmax"), errors("mse")
    assert high < 0.9 * plain_high
    assert full < 1.6 * plain_full and full < 0.01 * high


def test_high_halves_of_codes_are_what_is_stored() -> None:
    codes = np.arange(nested.LOWEST, nested.HIGHEST + 1, dtype=np.float32)[:224].reshape(-1, 32)
    scales = np.ones((len(codes), 1), "<f2").view(np.uint8)
    blocks = nested.pack(codes.astype(np.int16), scales)
    np.testing.assert_array_equal(nested.decode_high(blocks), nested.high_halves(codes))


def test_nested_codes_of_other_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 bits"):
        QuantScheme(6, "nested", "group", 32, "F16")
