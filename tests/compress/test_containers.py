"""What is packed is read back bit for bit, by the reader of files and by the reference decoder of the formats."""

import numpy as np
import pytest

from vivace.compress.containers import CONTAINERS, pack_matrix
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.scales import SCALE_RULES, fit_scales
from vivace.compress.schemes import Floats, QuantScheme
from vivace.compress.stored import StoredWeights, store_floats, store_quantized
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.weights import TensorFormat


def random_matrix(rows: int = 6, columns: int = 192, seed: int = 0) -> Floats:
    return (0.05 * np.random.default_rng(seed).standard_normal((rows, columns))).astype(np.float32)


@pytest.mark.parametrize("format", CONTAINERS)
@pytest.mark.parametrize("rule", SCALE_RULES)
@pytest.mark.parametrize("group_size", [32, 64, 192])
def test_stored_bytes_say_what_was_simulated(format: TensorFormat, rule: str, group_size: int) -> None:
    matrix = random_matrix()
    is_nested = CONTAINERS[format].kinds == ("nested",)
    for bits in range(8 if is_nested else 2, CONTAINERS[format].bits + 1):
        scheme = CONTAINERS[format].scheme(bits, max(group_size, CONTAINERS[format].block))
        quantized = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule))
        stored = store_quantized(quantized, format)
        np.testing.assert_array_equal(stored.dequantize(), quantized.dequantize())
        assert np.abs(stored.dequantize() - matrix).max() < 0.4


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_one_scale_a_channel_or_tensor_is_stored_in_every_block(granularity: str) -> None:
    matrix = random_matrix()
    scheme = QuantScheme(4, "full_symmetric", granularity, None, "F16")  # type: ignore[arg-type]
    quantized = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "mse"))
    np.testing.assert_array_equal(store_quantized(quantized, TensorFormat.Q4_0).dequantize(), quantized.dequantize())


def test_round_to_nearest_is_no_worse_than_the_formats_own_encoder() -> None:
    matrix = random_matrix(64)
    for format, container in CONTAINERS.items():
        scheme = container.scheme()
        rule = "minmax" if scheme.kind == "nested" else "mse"  # whose least squares looks at the high halves first
        ours = store_quantized(quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule)), format)
        theirs = store_floats(matrix, format)
        errors = [float(((tensor.dequantize() - matrix) ** 2).sum()) for tensor in (ours, theirs)]
        assert errors[0] <= errors[1] * 1.0001


def test_grids_that_a_format_cannot_hold_are_refused() -> None:
    matrix = random_matrix()
    scheme = QuantScheme(8, "symmetric", "group", 32, "F16")
    quantized = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "minmax"))
    for format in (TensorFormat.Q4_0, TensorFormat.Q4_1, TensorFormat.F16):
        with pytest.raises(ConfigError):
            pack_matrix(quantized, format)
    with pytest.raises(ConfigError, match="blocks"):
        CONTAINERS[TensorFormat.Q4_0].scheme(4, 48)
    with pytest.raises(ConfigError, match="multiple of 64"):
        CONTAINERS[TensorFormat.Q8_64].scheme(8, 32)
    with pytest.raises(ConfigError, match="wider"):
        CONTAINERS[TensorFormat.Q4_0].scheme(5)


def test_stored_weights_lie_over_a_base() -> None:
    base = StoredWeights({"a": store_floats(random_matrix(), TensorFormat.F32)})
    over = StoredWeights({"a": store_floats(random_matrix(), TensorFormat.F16)}, base)
    assert over.info("a").format == TensorFormat.F16
    assert over.num_bytes() * 2 == base.num_bytes()
    assert list(over.names()) == ["a"]
    with pytest.raises(ModelFileError):
        base.info("b")
