"""Number formats: what is written can be read back, and agrees with the layouts of GGML."""

import numpy as np
import pytest

from vivace.numerics.formats import FORMATS, dequantize, num_bytes, quantize
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.weights import TensorFormat

# Largest allowed root mean square error, as a part of the values' root mean square.
RELATIVE_ERROR = {
    TensorFormat.F32: 0.0,
    TensorFormat.F16: 3e-4,
    TensorFormat.BF16: 3e-3,
    TensorFormat.Q4_0: 0.11,
    TensorFormat.Q4_1: 0.10,
    TensorFormat.Q5_0: 0.055,
    TensorFormat.Q5_1: 0.05,
    TensorFormat.Q8_0: 0.007,
    TensorFormat.Q4_K: 0.10,
    TensorFormat.Q5_K: 0.05,
    TensorFormat.Q6_K: 0.025,
    TensorFormat.N8_0: 0.007,
    TensorFormat.Q8_64: 0.008,
    TensorFormat.Q6_64: 0.032,
    TensorFormat.Q5_64: 0.063,
    TensorFormat.Q4_64: 0.125,
    TensorFormat.Q6_0: 0.03,
    TensorFormat.Q8_M: 0.007,
}


def _weights(rows: int = 6, columns: int = 512, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (rows, columns)).astype(np.float32)


def test_every_tensor_format_has_a_row() -> None:
    assert set(FORMATS) == set(TensorFormat)


@pytest.mark.parametrize("name", list(TensorFormat))
def test_written_values_are_read_back_within_the_rounding_of_the_format(name: TensorFormat) -> None:
    values = _weights()
    raw = quantize(name, values)
    assert raw.dtype == np.uint8 and raw.ndim == 1
    assert raw.size == num_bytes(name, values.shape)
    again = dequantize(name, raw, values.shape)
    assert again.dtype == np.float32 and again.shape == values.shape
    error = np.sqrt(np.mean((again - values) ** 2) / np.mean(values**2))
    assert error <= RELATIVE_ERROR[name]


@pytest.mark.parametrize("name", list(TensorFormat))
def test_zeros_stay_zeros(name: TensorFormat) -> None:
    zeros = np.zeros((2, 256), dtype=np.float32)
    assert not dequantize(name, quantize(name, zeros), zeros.shape).any()


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_a_wide_block_is_two_narrow_ones_of_one_scale(bits: int) -> None:
    wide, narrow = TensorFormat(f"Q{bits}_64"), TensorFormat(f"Q{bits}_0")
    size = (num_bytes(wide, (1, 64)) - 2) // 2
    raw = np.random.default_rng(0).integers(0, 256, (5, 2 + 2 * size)).astype(np.uint8)
    raw[:, :2] = np.full((5, 1), 0.25, np.float16).view(np.uint8)
    halves = [np.concatenate([raw[:, :2], raw[:, 2 + half * size : 2 + (half + 1) * size]], axis=1) for half in (0, 1)]
    expected = [dequantize(narrow, half.reshape(-1), (5, 32)) for half in halves]
    np.testing.assert_array_equal(dequantize(wide, raw.reshape(-1), (5, 64)), np.concatenate(expected, axis=1))


def test_a_block_of_six_bits_lies_as_its_layout_says() -> None:
    codes = np.array([[-32, 31, *range(-15, 15)]], np.float32)  # 32 codes
    raw = quantize(TensorFormat.Q6_0, np.float32(0.5) * codes)
    assert raw[:2].view(np.float16)[0] == 0.5
    raised = codes[0].astype(int) + 32
    for column, code in enumerate(raised):
        low = raw[10 + column % 16] >> (4 * (column // 16)) & 15
        high = raw[2 + column % 8] >> (4 * (column % 16 // 8) + 2 * (column // 16)) & 3
        assert (high << 4 | low) == code
    np.testing.assert_array_equal(dequantize(TensorFormat.Q6_0, raw, (1, 32)), np.float32(0.5) * codes)


def test_a_block_about_a_middle_lies_as_its_layout_says() -> None:
    codes = np.array([[-128, 127, *range(-15, 15)]], np.float32)
    raw = quantize(TensorFormat.Q8_M, np.float32(0.5) * codes + np.float32(3))
    assert raw[:4].view(np.float16).tolist() == [0.5, 3.0]
    np.testing.assert_array_equal(raw[4:].view(np.int8), codes[0])
    equal = np.full((1, 32), 700.5, np.float32)  # a float16 number
    np.testing.assert_array_equal(dequantize(TensorFormat.Q8_M, quantize(TensorFormat.Q8_M, equal), (1, 32)), equal)


@pytest.mark.parametrize("name", [TensorFormat.Q4_K, TensorFormat.Q5_K, TensorFormat.Q6_K])
def test_k_blocks_survive_values_of_one_sign_and_of_very_different_sizes(name: TensorFormat) -> None:
    values = np.abs(_weights())
    values[:, 64:128] *= 0.01
    for sign in (1, -1):
        again = dequantize(name, quantize(name, sign * values), values.shape)
        assert np.abs(again - sign * values).max() < 0.05


def test_bfloat16_rounds_to_nearest_even_and_keeps_nan_and_infinity() -> None:
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, np.inf, -np.inf, np.nan], dtype=np.float32)
    again = dequantize(TensorFormat.BF16, quantize(TensorFormat.BF16, values), values.shape)
    np.testing.assert_array_equal(again, np.array([1.0, 1.0, 1.0 + 2**-6, np.inf, -np.inf, np.nan], dtype=np.float32))


def test_reading_never_warns_on_damaged_scales() -> None:
    raw = np.full(34, 0x7C, dtype=np.uint8)  # float16 0x7C7C is not a number
    assert np.isnan(dequantize(TensorFormat.Q8_0, raw, (32,))).all()


def test_a_row_that_is_no_whole_number_of_blocks_is_refused() -> None:
    with pytest.raises(ModelFileError, match="Q4_0 blocks of 32"):
        num_bytes(TensorFormat.Q4_0, (4, 33))
    with pytest.raises(ConfigError, match="256 values"):
        quantize(TensorFormat.Q6_K, np.zeros((1, 128), dtype=np.float32))


def test_bytes_that_do_not_fit_the_shape_are_refused() -> None:
    with pytest.raises(ModelFileError, match="cannot have 17 bytes"):
        dequantize(TensorFormat.Q4_0, np.zeros(17, dtype=np.uint8), (32,))


def test_bits_per_weight_are_those_of_ggml() -> None:
    assert FORMATS[TensorFormat.Q4_K].bits_per_weight == 4.5
    assert FORMATS[TensorFormat.Q6_K].bits_per_weight == 6.5625
