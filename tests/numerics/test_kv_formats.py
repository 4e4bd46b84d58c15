"""The table of KV formats: what it weighs, and what its codes give back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.numerics.kv_formats import (
    KV_FORMATS,
    bytes_by_kind,
    bytes_per_block,
    hadamard,
    is_exact,
    layer_formats,
    local_reach,
)
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT, KV_FORMAT_NAMES

# Largest error of a round trip, as a share of the head's largest magnitude. Four bits: half of one of 15 steps between
# the least and the largest lane; turning a head may raise its largest lane.
TOLERANCE = {"f16": 2**-11, "bf16": 2**-8, "int8": 0.6 / 127, "int8-int4": 0.2, "int4": 0.2, "int4+f16": 0.2}


def heads(seed: int, head_dim: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5, 3, head_dim)).astype(np.float32)


@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("head_dim", [32, 64, 96, 256])
def test_what_is_read_back_is_near_what_was_stored(name: str, head_dim: int) -> None:
    x = heads(1, head_dim)
    x[0, 0, 3] = 30.0  # an outlier, as keys have them
    limit = TOLERANCE[name] * np.abs(x).max(axis=-1, keepdims=True) + 1e-6
    assert np.all(np.abs(KV_FORMATS[name].keep_keys(x) - x) <= limit)
    assert np.all(np.abs(KV_FORMATS[name].keep_values(x) - x) <= limit)


@pytest.mark.parametrize("name", KV_FORMATS)
def test_zeros_and_numbers_beyond_float16_stay_finite(name: str) -> None:
    row = KV_FORMATS[name]
    assert not row.keep_keys(np.zeros((2, 64), np.float32)).any()
    assert np.isfinite(row.keep_values(np.full((2, 64), 1e30, np.float32))).all()
    assert np.isfinite(row.keep_values(np.full((2, 64), 1e-30, np.float32))).all()


@pytest.mark.parametrize("name", KV_FORMATS)
def test_a_position_is_stored_the_same_whatever_is_beside_it(name: str) -> None:
    x = heads(2)
    whole = KV_FORMATS[name].keep_keys(x)
    assert np.array_equal(whole[3, 1], KV_FORMATS[name].keep_keys(x[3, 1]))


@given(seed=st.integers(0, 100), size=st.sampled_from([16, 32, 48, 64, 80, 256]))
def test_turning_twice_is_nothing_and_keeps_products(seed: int, size: int) -> None:
    a, b = heads(seed, size), heads(seed + 1, size)
    assert np.allclose(hadamard(hadamard(a)), a, atol=1e-5)
    assert np.allclose((hadamard(a) * hadamard(b)).sum(-1), (a * b).sum(-1), atol=1e-3)


def test_turning_spreads_an_outlier_over_the_head() -> None:
    x = np.zeros((1, 64), np.float32)
    x[0, 5] = 8.0
    assert np.array_equal(np.abs(hadamard(x)), np.ones((1, 64), np.float32))


@pytest.mark.parametrize(
    ("name", "share"), [("f16", 1.0), ("bf16", 1.0), ("int8", 66 / 128), ("int8-int4", 102 / 256), ("int4", 36 / 128)]
)
def test_the_share_of_bf16_that_a_format_takes(name: str, share: float) -> None:
    full = bytes_per_block(layer_formats("bf16", 30, 64), 3, 64)
    assert full == 30 * 3 * 64 * 16 * 2 * 2
    assert bytes_per_block(layer_formats(name, 30, 64), 3, 64) / full == pytest.approx(share)


def test_a_mixed_format_weighs_its_codes_and_has_float16_copies_apart() -> None:
    formats = layer_formats(["int4+f16", "int8", "int4+f16"], 3, 64, [False, False, True])
    assert [row.name for row in formats] == ["int4+f16", "int8", "f16"]  # layers with a window keep little anyway
    assert bytes_by_kind(formats, [False, False, True], 1, 64) == (16 * (72 + 132), 16 * 2 * 256)
    assert local_reach(formats, 0) == (64, 16)
    assert local_reach(formats, 500) == (500, 16)
    assert local_reach(layer_formats("int4", 3, 64), 32) == (32, 0)


def test_the_first_positions_and_49_to_64_of_the_latest_are_read_in_float16() -> None:
    for position in range(300):
        exact = [key for key in range(position + 1) if is_exact(position, key)]
        assert exact[-1] == position
        assert exact[:16] == list(range(min(16, position + 1)))
        latest = [key for key in exact if key >= 16]
        assert latest == list(range(position + 1 - len(latest), position + 1))
        assert position < 80 or 49 <= len(latest) <= 64
    assert is_exact(100, 48)
    assert not is_exact(100, 47)


def test_the_command_line_knows_every_row() -> None:
    assert tuple(KV_FORMATS) == KV_FORMAT_NAMES
    assert DEFAULT_KV_FORMAT in KV_FORMATS


def test_layers_may_differ() -> None:
    formats = layer_formats(["f16", "int8"], 2, 64)
    assert [row.name for row in formats] == ["f16", "int8"]
    assert bytes_per_block(formats, 1, 64) == 16 * (256 + 132)


@pytest.mark.parametrize(
    ("choice", "layers", "head_dim", "word"),
    [("int7", 2, 64, "int7"), (["f16"], 2, 64, "1 KV formats"), ("int4", 2, 80, "80 lanes"), ([], 1, 64, "0 KV")],
)
def test_formats_that_cannot_be_are_refused(choice: str | list[str], layers: int, head_dim: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        layer_formats(choice, layers, head_dim)
