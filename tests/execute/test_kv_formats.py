"""Quantised KV pages and windows with sinks: native against the oracle, and the same bits however the rows are cut."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.greedy import blocks_for, make_batch
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace import _native
from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.numerics.kv_formats import KV_FORMATS, bytes_by_kind, layer_formats
from vivace.types.errors import ConfigError, EngineError
from vivace.types.step import ForwardBatch

ISAS = available_isas()
LENGTH = 90


def tokens_of(seed: int, count: int = LENGTH) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 97, count)]


def with_window(batch: ForwardBatch, sinks: int, window: int) -> ForwardBatch:
    starts = np.maximum(batch.positions - window + 1, 0).astype(np.int32)
    return replace(batch, window_starts=starts, sink_ends=np.full_like(starts, sinks))


def make_native(architecture: str = "llama", head_dim: int = 32, **settings: object) -> NativeExecutor:
    spec = tiny_spec(architecture, head_dim=head_dim)
    return NativeExecutor(
        build_graph(spec),
        random_weights(spec),
        num_blocks=40,
        num_threads=2,
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_native_gives_the_logits_of_the_oracle(architecture: str, name: str, isa: str) -> None:
    spec = tiny_spec(architecture, head_dim=32)
    graph, weights = build_graph(spec), random_weights(spec)
    whole = make_batch([(0, tokens_of(1), 0)], 1, blocks_for(LENGTH), all_logits=True)
    for batch in (whole, with_window(whole, 4, 21), with_window(whole, 40, 16)):
        oracle = ReferenceExecutor(graph, weights, num_blocks=8, kv_format=name)
        expected = oracle.forward(batch)
        native = NativeExecutor(graph, weights, num_blocks=8, isa=isa, num_threads=2, kv_format=name)
        error = np.abs(native.forward(batch) - expected)
        # A number that lies near the middle of two codes may be rounded to either: rare, and small on the whole.
        assert error.mean() < 2e-3 * np.abs(expected).max()
        exact = np.abs(ReferenceExecutor(graph, weights, num_blocks=8).forward(batch) - expected)
        # The kernels of bfloat16 round queries and weights as well, which the oracle leaves alone.
        share = 2.0 if name == "bf16" else 0.3
        assert error.mean() < max(share * exact.mean(), 1e-4 * np.abs(expected).max())


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_rows_never_depend_on_chunks_or_company(data: st.DataObject) -> None:
    """Any format, any window with sinks, any cut into chunks beside another sequence: the very bits of the whole."""
    name = data.draw(st.sampled_from([*KV_FORMATS, "mixed"]))
    choice: object = ["f16", "int8", "int4"] if name == "mixed" else name
    sinks, window = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 100))
    executor = make_native(data.draw(st.sampled_from(["llama", "gemma3"])), kv_format=choice)
    blocks = blocks_for(LENGTH)
    prompt, other = tokens_of(3), tokens_of(4)
    whole = with_window(make_batch([(0, prompt, 0)], 1, blocks, all_logits=True), sinks, window)
    expected = executor.forward(whole).copy()
    start = 0
    while start < LENGTH:
        count = min(data.draw(st.integers(1, LENGTH)), LENGTH - start)
        rows = [(1, other[: start + 1], 0), (0, prompt[start : start + count], start)]
        batch = with_window(make_batch(rows, 2, blocks, all_logits=True), sinks, window)
        found = executor.forward(batch)[start + 1 :]
        assert np.array_equal(found, expected[start : start + count])
        start += count


def test_blocks_outside_sinks_and_window_are_never_read() -> None:
    executor = make_native(kv_format="int8")
    prompt = tokens_of(5)
    whole = with_window(make_batch([(0, prompt, 0)], 1, blocks_for(LENGTH)), 4, 20)
    expected = executor.forward(whole).copy()
    last = with_window(make_batch([(0, prompt[-1:], LENGTH - 1)], 1, blocks_for(LENGTH)), 4, 20)
    table = last.block_tables.copy()
    table[0, 1 : (LENGTH - 20) // 16] = -1
    assert np.array_equal(executor.forward(replace(last, block_tables=table)), expected)
    with pytest.raises(EngineError, match="outside the pool"):
        executor.forward(replace(last, block_tables=table, window_starts=None, sink_ends=None))
    table[0, 0] = -1
    with pytest.raises(EngineError, match="outside the pool"):
        executor.forward(replace(last, block_tables=table))


def test_a_window_over_everything_is_the_full_attention() -> None:
    executor = make_native()
    whole = make_batch([(0, tokens_of(6), 0)], 1, blocks_for(LENGTH), all_logits=True)
    expected = executor.forward(whole).copy()
    assert np.array_equal(executor.forward(with_window(whole, 0, LENGTH)), expected)
    assert np.array_equal(executor.forward(with_window(whole, LENGTH, 1)), expected)


def test_windows_come_whole_or_not_at_all() -> None:
    executor = make_native()
    batch = make_batch([(0, tokens_of(6), 0)], 1, blocks_for(LENGTH))
    with pytest.raises(EngineError, match="come together"):
        executor.forward(replace(batch, window_starts=batch.positions))
    with pytest.raises(EngineError, match="one entry a row"):
        executor.forward(replace(batch, window_starts=batch.positions[1:].copy(), sink_ends=batch.positions))


@pytest.mark.parametrize("name", KV_FORMATS)
def test_copied_blocks_hold_codes_and_scales(name: str) -> None:
    executor = make_native(kv_format=name)
    prompt = tokens_of(7, 32)
    executor.forward(make_batch([(0, prompt, 0)], 1, blocks_for(LENGTH)))
    last = make_batch([(0, prompt[-1:], 31)], 1, blocks_for(LENGTH))
    expected = executor.forward(last).copy()
    moved = last.block_tables + 20
    executor.copy_blocks([(int(block), int(block) + 20) for block in last.block_tables[0, :2]])
    assert np.array_equal(executor.forward(replace(last, block_tables=moved)), expected)


@pytest.mark.parametrize("name", KV_FORMATS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_core_allocates_the_bytes_of_the_table(name: str, kv_heads: int) -> None:
    main, local = bytes_by_kind(layer_formats(name, 3, 64), (False,) * 3, kv_heads, 64)
    assert _native.KvPool([name] * 3, 5, kv_heads, 64).bytes_per_block == main + local
    apart = _native.KvPool([name] * 3, 5, kv_heads, 64, [0] * 3, 4)
    assert (apart.bytes_per_block, apart.bytes_per_local_block) == (main, local)


def test_float16_copies_may_lie_in_blocks_of_their_own_and_few_of_them_are_read() -> None:
    prompt = tokens_of(8, 112)
    whole = make_batch([(0, prompt, 0)], 1, blocks_for(112), all_logits=True)
    expected = make_native(kv_format="int4+f16").forward(whole).copy()
    apart = make_native(kv_format="int4+f16", num_local_blocks=30)
    tables = np.ascontiguousarray(whole.block_tables[:, ::-1] + 7)
    assert np.array_equal(apart.forward(replace(whole, local_tables=tables)), expected)
    last = make_batch([(0, prompt[-1:], 111)], 1, blocks_for(112))
    tables[0, 1:3] = -1  # positions 16 to 47: row 111 reads their codes
    assert np.array_equal(apart.forward(replace(last, local_tables=tables))[0], expected[-1])
    tables[0, 0] = -1
    with pytest.raises(EngineError, match="local block"):
        apart.forward(replace(last, local_tables=tables))


def test_formats_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="float7"):
        make_native(kv_format="float7")
    with pytest.raises(ConfigError, match="16 lanes"):
        make_native(head_dim=16, kv_format="int4")
    for formats, word in ((["f8"], "f8"), (["int4"], "32 divides")):
        with pytest.raises(ValueError, match=word):
            _native.KvPool(formats, 1, 1, 48)
