"""Matrices in bands of rows: a band has the bits that its rows have in a matrix which is in its format as a whole."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.factories.greedy import assert_alone_as_together, blocks_for, make_batch
from tests.factories.tiny_models import ArrayWeights, random_weights, tiny_spec

from vivace.compress.stored import StoredTensor, StoredWeights, store_bands, store_floats
from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.types.model import ModelSpec
from vivace.types.run_settings import INT8_WEIGHTS
from vivace.types.weights import TensorFormat, WeightSource

ISAS = available_isas()
BANDS = ((0, 64, TensorFormat.Q8_0), (64, 192, TensorFormat.Q4_0), (192, 201, TensorFormat.Q5_1))


def spec_of(*, tied: bool) -> ModelSpec:
    spec = tiny_spec()
    return replace(spec, vocab_size=201, hidden_size=64, tied_embeddings=tied)


def banded(values: NDArray[np.float32]) -> StoredTensor:
    return store_bands([store_floats(values[begin:end], format) for begin, end, format in BANDS])


def with_ends(weights: ArrayWeights, made: dict[str, StoredTensor]) -> StoredWeights:
    return StoredWeights(made, weights)


def logits(spec: ModelSpec, weights: WeightSource, isa: str, **settings: object) -> NDArray[np.float32]:
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, spec.vocab_size, 40)]
    batch = make_batch([(0, tokens, 0)], 1, blocks_for(40), all_logits=True)
    return NativeExecutor(build_graph(spec), weights, num_blocks=4, isa=isa, num_threads=2, **settings).forward(batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight_format", ["file", INT8_WEIGHTS])
def test_logits_of_a_band_are_those_of_a_head_that_is_all_in_its_format(isa: str, weight_format: str) -> None:
    spec = spec_of(tied=False)
    weights = random_weights(spec)
    head = weights.arrays["lm_head.weight"]
    settings = {"weight_format": weight_format, "activation_bits": 8 if weight_format == INT8_WEIGHTS else 12}
    found = logits(spec, with_ends(weights, {"lm_head.weight": banded(head)}), isa, **settings)
    for begin, end, format in BANDS:
        whole = logits(spec, with_ends(weights, {"lm_head.weight": store_floats(head, format)}), isa, **settings)
        np.testing.assert_array_equal(found[:, begin:end], whole[:, begin:end])


@pytest.mark.parametrize("isa", ISAS)
def test_tokens_of_a_band_are_embedded_as_its_format_has_them(isa: str) -> None:
    spec = spec_of(tied=False)
    weights = random_weights(spec)
    stored = banded(weights.arrays["embed.weight"])
    found = logits(spec, with_ends(weights, {"embed.weight": stored}), isa)
    widened = logits(
        spec, with_ends(weights, {"embed.weight": store_floats(stored.dequantize(), TensorFormat.F32)}), isa
    )
    np.testing.assert_array_equal(found, widened)


@pytest.mark.parametrize("isa", ISAS)
def test_a_tied_embedding_in_bands_gives_the_logits_of_the_oracle(isa: str) -> None:
    spec = spec_of(tied=True)
    weights = random_weights(spec)
    stored = with_ends(weights, {"embed.weight": banded(weights.arrays["embed.weight"])})
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, spec.vocab_size, 40)]
    batch = make_batch([(0, tokens, 0)], 1, blocks_for(40), all_logits=True)
    expected = ReferenceExecutor(build_graph(spec), stored, num_blocks=4).forward(batch)
    found = logits(spec, stored, isa, kv_format="f16")
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("isa", ISAS)
def test_a_banded_model_writes_the_same_text_in_any_company(isa: str) -> None:
    spec = spec_of(tied=True)
    weights = random_weights(spec)
    stored = with_ends(weights, {"embed.weight": banded(weights.arrays["embed.weight"])})
    executor = NativeExecutor(build_graph(spec), stored, num_blocks=60, isa=isa, num_threads=2)
    random = np.random.default_rng(7)
    prompts = [[int(token) for token in random.integers(0, spec.vocab_size, length)] for length in (1, 3, 17, 65, 70)]
    assert_alone_as_together(executor, prompts, 8, (1, 3, 64))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 9, 24, 40, 130])
def test_channels_of_a_band_are_those_of_matrices_all_in_its_format(isa: str, rows: int) -> None:
    """Gated in pieces, joined and one op after the other: whichever a step of so many rows takes."""
    spec = replace(tiny_spec(num_layers=1), hidden_size=64, ffn_size=192)
    weights = random_weights(spec)
    gate, up = "layers.0.mlp.gate.weight", "layers.0.mlp.up.weight"
    formats = {"gate": ((0, 64, TensorFormat.Q8_0), (64, 192, TensorFormat.Q4_0)), "up": ((0, 192, TensorFormat.Q6_0),)}
    down = np.zeros((64, 192), np.float32)
    down[np.arange(64), np.arange(64) * 3] = 1.0  # which makes the channels readable, of both bands
    weights.arrays["layers.0.mlp.down.weight"] = down
    stored = {
        name: store_bands([store_floats(weights.arrays[name][a:b], format) for a, b, format in formats[short]])
        for name, short in ((gate, "gate"), (up, "up"))
    }
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, spec.vocab_size, rows)]
    shares = [(number, [token], 0) for number, token in enumerate(tokens)] if rows < 40 else [(0, tokens, 0)]
    blocks = 1 if rows < 40 else blocks_for(rows)
    batch = make_batch(shares, len(shares), blocks, all_logits=True)

    def run(made: dict[str, StoredTensor]) -> NDArray[np.float32]:
        settings = {"num_blocks": len(shares) * blocks, "isa": isa, "num_threads": 2}
        return NativeExecutor(build_graph(spec), StoredWeights(made, weights), **settings).forward(batch)  # type: ignore[arg-type]

    whole = {
        name: store_floats(tensor.dequantize(), TensorFormat.F32) if name == gate else tensor
        for name, tensor in stored.items()
    }
    found, expected = run(stored), run(whole)
    assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()
    halves = [TensorFormat.Q8_0, TensorFormat.Q4_0]
    alike = [run({**stored, gate: store_floats(weights.arrays[gate], format)}) for format in halves]
    assert not np.array_equal(found, alike[0])
    assert not np.array_equal(found, alike[1])
