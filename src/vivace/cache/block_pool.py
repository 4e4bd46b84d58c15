"""The KV blocks of one executor: free, held by sequences, or cached (held by nobody, contents still known).

Owns the reference count of every block and the key of every block whose contents can be found again. Never touches the
memory itself; that belongs to the executor. At any time free + held + cached == all, see `BlockPool.check`.
"""

from collections.abc import Callable, Iterable, Sequence

from vivace.cache.eviction import BlockUse, build_eviction


class BlockPool:
    """Hands out KV blocks, whole requests or nothing, and takes them back.

    A block with a key goes to the cache when its last holder lets go, and is found again by that key until the room is
    needed; the eviction says which block is forgotten first.

    Args:
        num_blocks: blocks of the executor, numbered from 0.
        eviction: a row of cache/eviction.py.

    Raises:
        ConfigError: there is no such eviction.
    """

    def __init__(self, num_blocks: int, eviction: str = "lru") -> None:
        self._num_holders = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: set[int] = set()
        self._eviction_kind = eviction
        self._eviction = build_eviction(eviction)
        self._uses: dict[int, BlockUse] = {}
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self.on_forget: Callable[[int, bytes, int], None] | None = None
        """Called with block, key and depth while a block still holds what it is about to be forgotten for."""

    @property
    def num_blocks(self) -> int:
        """All blocks."""
        return len(self._num_holders)

    @property
    def num_free(self) -> int:
        """Blocks that hold nothing."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody holds but whose contents can still be found."""
        return len(self._cached)

    @property
    def num_held(self) -> int:
        """Blocks that at least one sequence holds."""
        return self.num_blocks - self.num_available

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: free and cached ones."""
        return len(self._free) + len(self._cached)

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` blocks with one holder each, or None and no change when there are not so many."""
        if count > self.num_available:
            return None
        while len(self._free) < count:
            self._forget_one()
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._num_holders[block] = 1
        return blocks

    def retain(self, blocks: Iterable[int]) -> None:
        """Add a holder to each block; the blocks are held or cached."""
        for block in blocks:
            if self._num_holders[block] == 0:
                self._cached.remove(block)
                self._eviction.discard(block)
            self._num_holders[block] += 1
            if block in self._uses:
                self._uses[block].num_hits += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Take a holder from each block. The last of `blocks` is forgotten first, so a prefix outlives its ends."""
        for block in reversed(blocks):
            holders = self._num_holders[block] - 1
            if holders < 0:
                raise AssertionError(f"block {block} is released but nobody holds it")
            self._num_holders[block] = holders
            if holders:
                continue
            if block in self._key_of:
                self._cached.add(block)
                self._eviction.add(block, self._uses[block])
            else:
                self._free.append(block)

    def publish(self, block: int, key: bytes, depth: int = 0) -> None:
        """Let a held block be found by `key`; the first block published under a key keeps it.

        Args:
            block: held by somebody.
            key: name of its contents.
            depth: blocks before it in its sequence.
        """
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key
            self._uses[block] = BlockUse(depth)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The blocks of the longest run of known keys from the first on. They are not held: `retain` them at once."""
        blocks = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def find_each(self, keys: Iterable[bytes]) -> list[int]:
        """The block of each key, -1 where it is unknown. They are not held, as with `find`."""
        return [self._block_of.get(key, -1) for key in keys]

    def num_cached_of(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` nobody holds, so that holding them takes from what is available."""
        return sum(1 for block in blocks if self._num_holders[block] == 0)

    def num_held_once(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` have one holder, so that its letting go makes them available."""
        return sum(1 for block in blocks if block >= 0 and self._num_holders[block] == 1)

    def num_holders(self) -> list[int]:
        """Holders of every block, for checks."""
        return list(self._num_holders)

    def forget_all(self) -> None:
        """Make every key unknown and every cached block free, as when the memory can no longer be trusted."""
        self._free.extend(self._cached)
        self._cached.clear()
        self._eviction = build_eviction(self._eviction_kind)
        self._uses.clear()
        self._key_of.clear()
        self._block_of.clear()

    def check(self) -> None:
        """Raise AssertionError unless every block is free, held or cached, and exactly one of them."""
        held = {block for block, holders in enumerate(self._num_holders) if holders > 0}
        free, cached = set(self._free), self._cached
        if len(free) != len(self._free) or len(free) + len(held) + len(cached) != self.num_blocks:
            raise AssertionError(f"{len(self._free)} free + {len(held)} held + {len(cached)} cached != all")
        if free & held or held & cached or free & cached or min(self._num_holders, default=0) < 0:
            raise AssertionError("a block has two states, or fewer than no holders")
        if not cached <= self._key_of.keys() or free & self._key_of.keys():
            raise AssertionError("a cached block has no key, or a free one has")
        if {key: block for block, key in self._key_of.items()} != self._block_of:
            raise AssertionError("keys and blocks do not mirror each other")

    def _forget_one(self) -> None:
        block = self._eviction.pop()
        self._cached.remove(block)
        use, key = self._uses.pop(block), self._key_of.pop(block)
        del self._block_of[key]
        if self.on_forget is not None:
            self.on_forget(block, key, use.depth)
        self._free.append(block)
