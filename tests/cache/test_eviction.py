"""What is forgotten first, for each kind; and that a prefix outlives its ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.cache.block_pool import BlockPool
from vivace.cache.eviction import EVICTIONS
from vivace.types.errors import ConfigError


def store(pool: BlockPool, name: str, count: int) -> list[int]:
    """A sequence of `count` blocks comes, is published and leaves."""
    blocks = pool.allocate(count)
    assert blocks is not None
    for depth, block in enumerate(blocks):
        pool.publish(block, f"{name}{depth}".encode(), depth)
    pool.release(blocks)
    return blocks


def use(pool: BlockPool, name: str, count: int) -> int:
    """Find a sequence again and leave; returns how many of its blocks were still known."""
    found = pool.find([f"{name}{depth}".encode() for depth in range(count)])
    pool.retain(found)
    pool.release(found)
    return len(found)


def press(pool: BlockPool, count: int) -> None:
    """Somebody without a name needs `count` blocks."""
    blocks = pool.allocate(count)
    assert blocks is not None
    pool.release(blocks)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="lru, lfu, cost"):
        BlockPool(4, "mru")


def test_lru_forgets_what_was_used_longest_ago_and_lfu_what_was_used_least() -> None:
    left = {}
    for kind in ("lru", "lfu"):
        pool = BlockPool(4, kind)
        store(pool, "often", 2)
        for _ in range(3):
            use(pool, "often", 2)
        store(pool, "late", 2)
        press(pool, 2)
        left[kind] = (use(pool, "often", 2), use(pool, "late", 2))
    assert left == {"lru": (0, 2), "lfu": (2, 0)}


def test_cost_keeps_the_shared_beginning_and_lets_old_favourites_age() -> None:
    pool = BlockPool(8, "cost")
    store(pool, "system", 2)
    for _ in range(5):
        use(pool, "system", 2)
    for number in range(5):
        store(pool, f"chat{number}-", 6)
    assert use(pool, "system", 2) == 2
    for number in range(60):
        store(pool, f"more{number}-", 6)
    assert use(pool, "system", 2) == 0


@pytest.mark.parametrize("kind", EVICTIONS)
def test_ends_are_forgotten_before_the_beginning(kind: str) -> None:
    pool = BlockPool(6, kind)
    store(pool, "a", 6)
    for taken in range(1, 6):
        press(pool, taken)
        assert use(pool, "a", 6) == 6 - taken


operations = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans()), max_size=60)


@pytest.mark.parametrize("kind", EVICTIONS)
@given(operations)
@settings(max_examples=100, deadline=None)
def test_every_block_is_free_held_or_cached_whatever_happens(kind: str, steps: list[tuple[int, int, bool]]) -> None:
    pool = BlockPool(10, kind)
    held: list[list[int]] = []
    for name, count, leave in steps:
        keys = [f"{name}{depth}".encode() for depth in range(count)]
        found = pool.find(keys)
        pool.retain(found)
        blocks = pool.allocate(count - len(found))
        if blocks is None:
            pool.release(found)
        else:
            held.append(found + blocks)
            for depth, block in enumerate(held[-1]):
                pool.publish(block, keys[depth], depth)
        if leave and held:
            pool.release(held.pop(0))
        pool.check()
    pool.forget_all()
    pool.check()
