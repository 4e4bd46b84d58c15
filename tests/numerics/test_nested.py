"""N8_0: one copy of eight bits, of which the high four are a 4-bit matrix as good as one rounded for itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.numerics import nested
from vivace.numerics.formats import dequantize, quantize
from vivace.types.weights import TensorFormat


def _blocks(rows: int = 400) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.1, (rows, nested.BLOCK)).astype(np.float32)


def test_the_high_half_alone_is_as_near_as_q4_0() -> None:
    values = _blocks()
    four = dequantize(TensorFormat.Q4_0, quantize(TensorFormat.Q4_0, values), values.shape)
    high = nested.decode_high(nested.encode(values))
    assert np.linalg.norm(high - values) <= 1.01 * np.linalg.norm(four - values)


def test_the_low_half_takes_the_error_down_fifteenfold() -> None:
    values = _blocks()
    blocks = nested.encode(values)
    coarse, fine = (np.linalg.norm(read(blocks) - values) for read in (nested.decode_high, nested.decode))
    assert fine * 15 < coarse


@settings(deadline=None, max_examples=60)
@given(
    codes=st.lists(st.integers(nested.LOWEST, nested.HIGHEST), min_size=32, max_size=32), scale=st.floats(1e-6, 4000)
)
def test_every_code_survives_and_its_high_half_is_the_nearest(codes: list[int], scale: float) -> None:
    half = np.full((1, 1), scale, "<f2")
    blocks = nested.pack(np.array([codes], np.int16), half.view(np.uint8))
    stored = half.astype(np.float32)
    np.testing.assert_array_equal(nested.decode(blocks), stored * np.array([codes], np.float32))
    assert np.abs(nested.decode_high(blocks) / stored - np.array([codes])).max() <= 8.001


def test_weights_too_large_for_float16_are_clipped_so_that_sixteen_scales_still_fit() -> None:
    blocks = nested.encode(np.full((1, nested.BLOCK), 3e7, np.float32))
    assert np.isfinite(nested.decode(blocks)).all() and np.isfinite(nested.decode_high(blocks)).all()
    assert float(blocks[:, :2].view("<f2").astype(np.float32)[0, 0]) * -16 <= 65504
