"""Attention that is observed, tables with blocks taken out, and local layers: native against the oracle, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from tests.factories.greedy import blocks_for, make_batch
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.numerics.kv_formats import KV_FORMATS
from vivace.types.errors import EngineError
from vivace.types.step import ForwardBatch

LENGTH = 90
HEADS, LAYERS = 4, 3


def tokens_of(seed: int, count: int = LENGTH) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 97, count)]


def observing(batch: ForwardBatch, rows: list[int]) -> ForwardBatch:
    return replace(batch, observe_rows=np.array(rows, np.int32))


def make_native(architecture: str = "llama", **settings: object) -> NativeExecutor:
    spec = tiny_spec(architecture, head_dim=32, num_layers=LAYERS)
    return NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=12, num_threads=2, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_masses_are_those_of_the_oracle_and_sum_to_one_a_head(architecture: str, name: str, isa: str) -> None:
    spec = tiny_spec(architecture, head_dim=32, num_layers=LAYERS)
    whole = observing(make_batch([(0, tokens_of(1), 0)], 1, blocks_for(LENGTH)), [3, 16, 88, 89])
    starts = np.maximum(whole.positions - 20, 0).astype(np.int32)
    narrow = replace(whole, window_starts=starts, sink_ends=np.full_like(starts, 4))
    oracle = ReferenceExecutor(build_graph(spec), random_weights(spec), num_blocks=12, kv_format=name)
    native = make_native(architecture, isa=isa, kv_format=name)
    num_layers = LAYERS if architecture == "llama" else 1  # local layers are not observed
    for batch in (whole, narrow):
        oracle.forward(batch)
        native.forward(batch)
        expected, found = oracle.observed(), native.observed()
        assert found.shape == expected.shape == (4, blocks_for(LENGTH))
        assert found.sum(axis=1) == pytest.approx([HEADS * num_layers] * 4, rel=1e-4)
        assert np.abs(found - expected).max() < 0.05
        assert (found[0, 1:] == 0).all()


def test_masses_are_the_same_bits_alone_in_company_and_in_chunks() -> None:
    native = make_native(kv_format="int8")
    prompt = tokens_of(2)
    native.forward(observing(make_batch([(0, prompt, 0)], 1, 6), [80, 89]))
    alone = native.observed()
    native.forward(make_batch([(0, prompt[:70], 0)], 1, 6))
    native.forward(observing(make_batch([(0, prompt[70:85], 70)], 1, 6), [10]))
    first = native.observed()
    company = make_batch([(1, tokens_of(3, 20), 0), (0, prompt[85:], 85)], 2, 6)
    native.forward(observing(company, [24]))
    assert np.array_equal(np.concatenate((first, native.observed())), alone)


def without_block(batch: ForwardBatch, block: int) -> ForwardBatch:
    tables = np.ascontiguousarray(np.delete(batch.block_tables, block, axis=1))
    return replace(batch, block_tables=tables, slots=batch.positions - np.int32(16))


@pytest.mark.parametrize("name", ["f16", "int4"])
def test_rows_after_a_block_was_taken_out_see_the_rest_at_their_own_angles(name: str) -> None:
    spec = tiny_spec("llama", head_dim=32, num_layers=LAYERS)
    prompt, native = tokens_of(4), make_native(kv_format=name)
    oracle = ReferenceExecutor(build_graph(spec), random_weights(spec), num_blocks=12, kv_format=name)
    rest = without_block(make_batch([(0, prompt[64:], 64)], 1, 6, all_logits=True), 2)
    # The same sight written as a window with sinks: all but positions 32 to 47 of the whole table.
    whole = make_batch([(0, prompt[64:], 64)], 1, 6, all_logits=True)
    hidden = replace(whole, window_starts=np.full(26, 48, np.int32), sink_ends=np.full(26, 32, np.int32))
    logits = []
    for executor, batch in ((native, rest), (oracle, rest), (oracle, hidden)):
        executor.forward(make_batch([(0, prompt[:64], 0)], 1, 6))
        logits.append(executor.forward(batch).copy())
    assert np.allclose(logits[1], logits[2], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).mean() < 2e-3 * np.abs(logits[1]).max()


def test_local_layers_read_their_own_blocks_and_need_those_of_their_window_only() -> None:
    prompt = tokens_of(5)
    native = make_native("gemma3", num_local_blocks=3)  # a window of 5 positions
    expected = make_native("gemma3").forward(make_batch([(0, prompt, 0)], 1, 6, all_logits=True)).copy()
    table = np.full((1, 6), -1, np.int32)
    found = []
    for start in range(0, LENGTH, 10):
        first, last = max(0, start - 4) // 16, (start + 9) // 16
        table[0, :first] = -1
        for block in range(first, min(last + 1, 6)):
            table[0, block] = block % 3
        count = min(10, LENGTH - start)
        batch = make_batch([(0, prompt[start : start + count], start)], 1, 6, all_logits=True)
        found.append(native.forward(replace(batch, local_tables=table)).copy())
    assert np.array_equal(np.concatenate(found), expected)
    with pytest.raises(EngineError, match="local block"):
        native.forward(make_batch([(0, prompt, 0)], 1, 6))


def test_bytes_are_told_for_each_kind_of_layers() -> None:
    llama, gemma = make_native("llama"), make_native("gemma3", num_local_blocks=9)
    assert llama.bytes_per_local_block == 0
    assert gemma.bytes_per_local_block == 2 * gemma.bytes_per_block
    assert gemma.bytes_per_block + gemma.bytes_per_local_block == llama.bytes_per_block
    assert make_native("gemma3").bytes_per_block == llama.bytes_per_block  # one kind, unless asked for


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": np.zeros(3, np.int32)},
        {"slots": np.arange(1, 5, dtype=np.int32)},
        {"slots": np.array([0, 1, 1, 2], np.int32)},
        {"slots": np.array([-1, 0, 1, 2], np.int32)},
        {"observe_rows": np.array([4], np.int32)},
        {"local_tables": np.zeros((2, 1), np.int32)},
    ],
    ids=str,
)
def test_arrays_that_cannot_be_are_refused(wrong: dict[str, np.ndarray]) -> None:
    batch = make_batch([(0, tokens_of(6, 4), 0)], 1, 1)
    with pytest.raises(EngineError):
        make_native().forward(replace(batch, **wrong))
