"""Turned codes (`--weights int8`): the core against its numpy twin, the oracle, and the promise of the same text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.factories.gguf_files import small_spec, write_gguf
from tests.factories.greedy import assert_alone_as_together, blocks_for, make_batch
from tests.factories.tiny_models import ARCHITECTURES, ArrayWeights, random_weights, tiny_spec

from vivace import _native
from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.native_program import quantized_in, turned_in
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.casts import native_policy
from vivace.graph.passes import cast_inputs
from vivace.numerics.turned import TURN, requantized, to_int8_turned, turn
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.run_settings import INT8_WEIGHTS
from vivace.types.weights import TensorFormat

ISAS = available_isas()


def turned_spec(architecture: str) -> ModelSpec:
    """A tiny model whose widths 64 divides."""
    spec = tiny_spec(architecture, num_heads=4, num_kv_heads=2)
    return replace(spec, hidden_size=128, ffn_size=192, embed_scale=128**0.5 if architecture == "gemma3" else 1.0)


def tokens_of(count: int, vocab: int, seed: int = 5) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, count)]


def packed(weight: NDArray[np.float32], format: str = "F32") -> _native.PackedMatrix:
    raw = np.ascontiguousarray(weight).view(np.uint8).reshape(-1)
    return _native.PackedMatrix(format, raw, *weight.shape, 2, _native.ChunkedMemory(), True)


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(1, 5), scale=st.floats(1e-4, 1e4))
@settings(deadline=None)
def test_turning_twice_gives_the_rows_back_and_turning_keeps_products(seed: int, groups: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    x, w = (generator.standard_normal((3, groups * TURN)).astype(np.float32) * np.float32(scale) for _ in range(2))
    assert np.allclose(turn(turn(x)) / TURN, x, rtol=1e-4, atol=1e-5 * scale)
    assert np.allclose(turn(x) @ turn(w).T / TURN, x @ w.T, rtol=1e-3, atol=1e-3 * scale**2 * groups * TURN)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_the_core_packs_the_numbers_of_the_twin_to_the_bit(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_t(3, (19, 192)).astype(np.float32)
    weight[3] = 0
    matrix = packed(weight)
    found = np.stack([matrix.unpack_row(row) for row in range(len(weight))])
    assert np.array_equal(found, requantized(weight))


@pytest.mark.parametrize("format", [format for format in TensorFormat if format is not TensorFormat.N8_0])
def test_every_format_is_requantised_from_its_own_numbers(format: TensorFormat, tmp_path: Path) -> None:
    spec = small_spec(hidden_size=256, ffn_size=512, head_dim=64)
    write_gguf(tmp_path / "model.gguf", spec, format=format)
    model = open_model(tmp_path / "model.gguf")
    name = "layers.0.mlp.gate.weight"
    shape = model.weights.info(name).shape
    assert model.weights.info(name).format is format
    matrix = _native.PackedMatrix(format, model.weights.raw(name), *shape, 2, _native.ChunkedMemory(), True)
    found = np.stack([matrix.unpack_row(row) for row in range(shape[0])])
    expected = requantized(model.weights.dequantize(name))
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()  # a code on an edge may round either way
    assert np.abs(found - expected).mean() <= 1e-3 * np.abs(expected).max()


def test_one_outlier_costs_its_neighbours_less_than_a_step_of_its_own() -> None:
    rows = np.random.default_rng(3).standard_normal((1, TURN)).astype(np.float32)
    rows[0, 7] = 100.0
    error = np.abs(to_int8_turned(rows) - rows)[0]
    assert np.delete(error, 7).max() < 100 / 127 / 2  # what one scale without turning rounds the others by


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_core_gives_the_logits_of_the_oracle_over_the_same_codes(architecture: str, isa: str) -> None:
    spec = turned_spec(architecture)
    graph, weights = build_graph(spec), random_weights(spec)
    arrays = {name: requantized(a) if a.ndim == 2 else a for name, a in weights.arrays.items()}
    batch = make_batch([(0, tokens_of(70, spec.vocab_size), 0)], 1, blocks_for(70), all_logits=True)
    is_turned = turned_in(weights, INT8_WEIGHTS)
    assert all(is_turned(name) for name, a in weights.arrays.items() if a.ndim == 2)
    cast = cast_inputs(graph, native_policy(12), quantized_in(weights), is_turned=is_turned)
    expected = ReferenceExecutor(cast, ArrayWeights(arrays), num_blocks=8, kv_format="f16").forward(batch)
    native = NativeExecutor(graph, weights, num_blocks=8, isa=isa, num_threads=2, weight_format="int8")
    found = native.forward(batch)
    # A value on the edge between two codes may round to either; nothing else may differ.
    assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()
    assert np.median(np.abs(found - expected)) < 3e-3 * np.abs(expected).max()


@pytest.mark.parametrize("isa", ISAS)
def test_turned_alone_equals_batched_equals_chunked_to_the_bit(isa: str) -> None:
    spec = turned_spec("llama")
    weights = random_weights(spec)
    executor = NativeExecutor(build_graph(spec), weights, num_blocks=120, isa=isa, num_threads=2, weight_format="int8")
    prompts = [tokens_of(length, spec.vocab_size, seed=length) for length in (1, 3, 17, 64, 65)]
    assert_alone_as_together(executor, prompts, 8, (1, 7, 512))


def test_matrices_that_64_does_not_divide_run_in_the_format_of_the_file() -> None:
    spec = tiny_spec("llama")  # 48 and 80 columns; heads give 64
    graph, weights = build_graph(spec), random_weights(spec)
    is_turned = turned_in(weights, INT8_WEIGHTS)
    assert {
        name.split(".", 2)[-1] for name in weights.names() if weights.arrays[name].ndim == 2 and is_turned(name)
    } == {"attn.o.weight"}
    batch = make_batch([(0, tokens_of(20, spec.vocab_size), 0)], 1, blocks_for(20), all_logits=True)
    expected = ReferenceExecutor(graph, weights, num_blocks=4).forward(batch)
    found = NativeExecutor(graph, weights, num_blocks=4, weight_format="int8").forward(batch)
    assert np.abs(found - expected).max() < 5e-2 * np.abs(expected).max()


def test_an_early_exit_reads_the_same_turned_matrices() -> None:
    spec = turned_spec("llama")
    weights = random_weights(spec)
    executor = NativeExecutor(build_graph(spec), weights, num_blocks=8, weight_format="int8")
    batch = make_batch([(0, tokens_of(9, spec.vocab_size), 0)], 1, 1)
    whole = executor.forward(batch).copy()
    assert np.array_equal(executor.early_exit(spec.num_layers, 32).forward(batch), whole)


def test_widths_and_names_that_cannot_be_are_refused() -> None:
    spec = tiny_spec()
    with pytest.raises(ConfigError, match="no weight format 'int7'"):
        NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2, weight_format="int7")
    with pytest.raises(ConfigError, match="Exact weights cannot be requantised"):
        NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2, weight_format="int8", activation_bits=32)
    with pytest.raises(ValueError, match="multiple of 64 columns"):
        packed(np.zeros((4, 96), np.float32))
    with pytest.raises(ConfigError, match="no whole number of groups of 64"):
        turn(np.zeros((1, 96), np.float32))


def test_nested_weights_keep_their_levels() -> None:
    class Nested(ArrayWeights):
        def info(self, name: str):  # type: ignore[no-untyped-def]
            return replace(super().info(name), format=TensorFormat.N8_0)

    weights = Nested({"w": np.zeros((4, 64), np.float32)})
    assert not turned_in(weights, INT8_WEIGHTS)("w")
