"""Blocks are free, held or cached, one of them at any time; they are handed out whole or not at all."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vivace.cache.block_pool import BlockPool


def test_blocks_are_handed_out_whole_or_not_at_all() -> None:
    pool = BlockPool(4)
    first = pool.allocate(3)
    assert first is not None and len(set(first)) == 3
    assert pool.allocate(2) is None
    assert (pool.num_free, pool.num_held, pool.num_cached) == (1, 3, 0)
    assert pool.allocate(0) == []


def test_a_shared_block_returns_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1) or []
    pool.retain(blocks)
    pool.release(blocks)
    assert pool.num_free == 1
    pool.release(blocks)
    assert pool.num_free == 2
    with pytest.raises(AssertionError, match="nobody holds"):
        pool.release(blocks)


def test_a_published_block_stays_findable_until_its_room_is_needed() -> None:
    pool = BlockPool(3)
    blocks = pool.allocate(2) or []
    pool.publish(blocks[0], b"a")
    pool.publish(blocks[1], b"b")
    pool.release(blocks)
    assert (pool.num_free, pool.num_cached, pool.num_available) == (1, 2, 3)
    assert pool.find([b"a", b"b", b"c"]) == blocks
    assert pool.find([b"c", b"a"]) == []
    assert len(pool.allocate(2) or []) == 2
    assert pool.find([b"a", b"b"]) == blocks[:1], "the end of a chain is forgotten before its beginning"
    pool.check()


def test_a_found_block_can_be_held_again() -> None:
    pool = BlockPool(1)
    blocks = pool.allocate(1) or []
    pool.publish(blocks[0], b"a")
    pool.release(blocks)
    assert pool.num_cached_of(blocks) == 1
    pool.retain(blocks)
    assert (pool.num_held, pool.num_cached, pool.num_cached_of(blocks)) == (1, 0, 0)
    assert pool.allocate(1) is None


def test_the_first_block_published_under_a_key_keeps_it() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2) or []
    pool.publish(first, b"a")
    pool.publish(second, b"a")
    pool.release([first, second])
    assert pool.find([b"a"]) == [first]
    assert (pool.num_free, pool.num_cached) == (1, 1)


def test_forgetting_everything_frees_cached_blocks_and_leaves_held_ones() -> None:
    pool = BlockPool(3)
    first, second = pool.allocate(2) or []
    pool.publish(first, b"a")
    pool.publish(second, b"b")
    pool.release([second])
    pool.forget_all()
    assert (pool.num_free, pool.num_held, pool.num_cached) == (2, 1, 0)
    assert pool.find([b"a"]) == []
    pool.release([first])
    pool.check()


class PoolMachine(RuleBasedStateMachine):
    """Random holders, keys and releases against a list of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(7)
        self.held: list[int] = []
        self.num_keys = 0

    @rule(count=st.integers(0, 5))
    def allocate(self, count: int) -> None:
        could = count <= self.pool.num_available
        blocks = self.pool.allocate(count)
        assert (blocks is not None) == could
        if blocks is not None:
            assert not set(blocks) & set(self.held)
            self.held += blocks

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.held))
        self.held.remove(block)
        self.pool.release([block])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        self.num_keys += 1
        self.pool.publish(data.draw(st.sampled_from(self.held)), b"%d" % (self.num_keys % 9))

    @rule(key=st.integers(0, 8))
    def find_and_retain(self, key: int) -> None:
        blocks = self.pool.find([b"%d" % key])
        self.pool.retain(blocks)
        self.held += blocks

    @invariant()
    def books_agree(self) -> None:
        self.pool.check()
        assert self.pool.num_held == len(set(self.held))
        for block, holders in enumerate(self.pool.num_holders()):
            assert holders == self.held.count(block)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
