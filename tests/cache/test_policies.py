"""KV policies: what rows see, which blocks are dead, and that the two agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.greedy import blocks_for, make_batch
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace.cache.block_table import BlockTable
from vivace.cache.policies import num_blocks_held, parse_policy
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, ForwardBatch

POLICIES = ("full", "window:32:4", "window:1:0", "window:20:17", "adaptive:64:16:4", "adaptive")


def seen_by(text: str, position: int) -> set[int]:
    sight = parse_policy(text).sight(np.array([position], np.int32))
    if sight is None:
        return set(range(position + 1))
    (start,), (sinks,) = sight
    return {*range(min(sinks, position + 1)), *range(start, position + 1)}


def test_rows_see_their_sinks_and_their_window() -> None:
    assert seen_by("window:3:2", 10) == {0, 1, 8, 9, 10}
    assert seen_by("window:3:2", 1) == {0, 1}
    assert seen_by("adaptive:6:2:1", 5) == set(range(6))
    assert seen_by("adaptive:6:2:1", 6) == {0, 5, 6}
    assert seen_by("full", 7) == set(range(8))


@settings(deadline=None, max_examples=60)
@given(text=st.sampled_from(POLICIES), num_computed=st.integers(0, 1000), ahead=st.integers(0, 100))
def test_no_later_row_sees_a_dead_block(text: str, num_computed: int, ahead: int) -> None:
    policy = parse_policy(text)
    seen = {position // BLOCK_SIZE for position in seen_by(text, num_computed + ahead)}
    assert not seen & set(policy.dead_blocks(num_computed))


@settings(deadline=None, max_examples=60)
@given(text=st.sampled_from(POLICIES), num_computed=st.integers(1, 1000))
def test_the_dead_only_grow_and_nothing_useless_is_held(text: str, num_computed: int) -> None:
    policy = parse_policy(text)
    assert set(policy.dead_blocks(num_computed - 1)) <= set(policy.dead_blocks(num_computed))
    last_full = max(0, num_computed // BLOCK_SIZE * BLOCK_SIZE - 1)  # blocks are given back as one fills up
    useful = {position // BLOCK_SIZE for position in seen_by(text, last_full)}
    assert num_blocks_held(policy, num_computed) <= len(useful) + 1


def test_a_long_window_holds_a_bounded_number_of_blocks() -> None:
    assert num_blocks_held(parse_policy("window:256:4"), 100_000) <= 256 // BLOCK_SIZE + 3
    assert num_blocks_held(parse_policy("full"), 100_000) == 6250


def test_a_chat_goes_on_while_its_dead_blocks_serve_another() -> None:
    """Blocks really come back: another sequence overwrites them, and the first one's logits stay the same bits."""
    spec = tiny_spec("llama", head_dim=32)
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=16, num_threads=2, kv_format="int8")
    policy = parse_policy("window:32:4")
    tokens = [int(token) for token in np.random.default_rng(8).integers(0, 97, 120)]

    def step(first: int, ids: list[int], table: np.ndarray) -> np.ndarray:
        plain = make_batch([(0, ids, first)], 1, blocks_for(120))
        starts, sinks = policy.sight(plain.positions) or (None, None)
        arrays = (plain.token_ids, plain.positions, plain.sequence_starts, table[None], plain.logit_rows)
        return executor.forward(ForwardBatch(*arrays, starts, sinks)).copy()

    table = BlockTable()
    table.extend(range(8))
    step(0, tokens[:100], table.entries)
    expected = [step(position, [tokens[position]], table.entries) for position in range(100, 120)]
    step(0, tokens[:100], table.entries)
    dropped = table.drop(policy.dead_blocks(100))
    assert dropped == [1, 2, 3]
    stranger = np.array([*dropped, 9, 10], np.int32)
    step(0, tokens[20:90], stranger)
    found = [step(position, [tokens[position]], table.entries) for position in range(100, 120)]
    assert np.array_equal(found, expected)
    assert table.drop(policy.dead_blocks(100)) == []
    assert table.drop(policy.dead_blocks(119)) == [4]
    assert table.clear() == [0, 5, 6, 7]


@pytest.mark.parametrize("text", ["", "windows", "window:0", "window:-1", "window:8:x", "window:1:2:3", "full:1"])
def test_policies_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_policy(text)
