"""When blocks are worth moving: to a lower tier when the pool forgets them, and back before a sequence starts.

Moving is compared with computing again, both as measured on this machine (schedule/step_cost.py, cache/tiers.py). Until
both are known blocks are moved.
"""

from collections.abc import Mapping, Sequence

from vivace.cache.block_pool import BlockPool
from vivace.cache.returns import ReturnPredictor
from vivace.cache.tiers import BlockTiers
from vivace.schedule.estimates import Estimates
from vivace.types.step import BLOCK_SIZE, BlockContent

PRELOAD_SHARE = 0.25  # of the blocks that can be handed out, for one conversation that has not come yet


class TierDesk:
    """Decides what moves between a pool and the tiers below it.

    Args:
        tiers: None: there are none, and nothing moves.
        pool: whose forgotten blocks are kept.
        estimates: what computing takes.
    """

    def __init__(self, tiers: BlockTiers | None, pool: BlockPool, estimates: Estimates) -> None:
        self._tiers = tiers
        self._pool = pool
        self._estimates = estimates
        self._preloaded: set[bytes] = set()
        self._returns = ReturnPredictor()
        if tiers is not None:
            pool.on_forget = self._spill

    def return_s(self, num_computed: int) -> float:
        """Seconds until a sequence that gives up its blocks is where it was: by moving them, or by computing them.

        Where steps are not measured yet, the number of tokens stands in.
        """
        compute_s = self._estimates.rows_s(0, num_computed)
        if compute_s == 0:
            return float(num_computed)
        if self._tiers is None:
            return compute_s
        num_full = num_computed // BLOCK_SIZE
        move_s = num_full * (self._tiers.move_s("spill") + self._tiers.move_s("host"))
        rest_s = self._estimates.rows_s(num_full * BLOCK_SIZE, num_computed % BLOCK_SIZE)
        return min(compute_s, move_s + rest_s)

    def fetch(self, keys: Sequence[bytes], num_found: int) -> list[BlockContent]:
        """What the tiers hold of a prompt beyond the blocks the pool has; nothing where computing is quicker.

        Args:
            keys: of the prompt's full blocks.
            num_found: how many of these the pool holds.
        """
        if self._tiers is None:
            return []
        self._note_used(keys[:num_found])
        wanted = keys[num_found:]
        self._tiers.counters.num_wanted += len(wanted)
        num_stored, num_disk = self._tiers.num_stored(wanted)
        move_s = self._tiers.move_s("host") * num_stored + self._tiers.move_s("disk") * num_disk
        if not num_stored or self._is_cheaper(num_found, num_stored, move_s):
            return []
        return self._tiers.fetch(wanted[:num_stored])

    def preload(self, keys: Sequence[bytes], contents: Mapping[bytes, BlockContent], in_use: set[int]) -> int:
        """Bring a prefix back to the pool as cached blocks before it is asked for; returns how many are there.

        Takes blocks that nobody holds and never more than a share of them, so hints harm no running sequence.

        Args:
            keys: of the prefix.
            contents: blocks that were read from disk for it.
            in_use: blocks that a copy of the next step reads; they are not written.
        """
        found = self._pool.find(keys)
        if self._tiers is None:
            return len(found)
        self._pool.retain(found)
        come = self._in_memory(keys[len(found) :], contents, int(self._pool.num_available * PRELOAD_SHARE))
        blocks = self._pool.allocate(len(come)) or []
        if in_use.intersection(blocks):
            self._pool.release(blocks)
            blocks = []
        for depth, (block, content) in enumerate(zip(blocks, come, strict=False), len(found)):
            self._tiers.write(block, content)
            self._pool.publish(block, keys[depth], depth)
            self._preloaded.add(keys[depth])
        self._tiers.counters.num_preloaded += len(blocks)
        self._pool.release([*found, *blocks])
        return len(found) + len(blocks)

    def note_active(self, keys: Sequence[bytes]) -> None:
        """A sequence with these block keys gives up its blocks."""
        if self._tiers is not None:
            self._returns.note_active(keys)

    def preload_expected(self, in_use: set[int]) -> int:
        """Bring back from host memory who is likely to return, while nobody needs the engine; returns how many blocks.

        All of them together take no more than a share of the pool, so that none pushes out another.
        """
        if self._tiers is None:
            return 0
        num_before = self._tiers.counters.num_preloaded
        for keys in self._returns.expected(int(self._pool.num_blocks * PRELOAD_SHARE)):
            self.preload(keys, {}, in_use)
        return self._tiers.counters.num_preloaded - num_before

    def _in_memory(
        self, keys: Sequence[bytes], contents: Mapping[bytes, BlockContent], most: int
    ) -> list[BlockContent]:
        assert self._tiers is not None
        come: list[BlockContent] = []
        for key in keys[:most]:
            content = contents.get(key)
            if content is None:
                content = self._tiers.host.get(key)
            if content is None:
                break
            come.append(content)
        return come

    def forget(self) -> None:
        """Trust nothing in host memory any more."""
        self._preloaded.clear()
        if self._tiers is not None:
            self._tiers.forget_host()

    def _spill(self, block: int, key: bytes, depth: int) -> None:
        assert self._tiers is not None
        self._preloaded.discard(key)
        move_s = self._tiers.move_s("spill") + self._tiers.move_s("host")
        if self._is_cheaper(depth, 1, move_s):
            self._tiers.counters.num_not_spilled += 1
        else:
            self._tiers.spill(block, key)

    def _is_cheaper(self, first_block: int, num_blocks: int, move_s: float) -> bool:
        """Whether computing blocks takes less time than moving them."""
        compute_s = self._estimates.rows_s(first_block * BLOCK_SIZE, num_blocks * BLOCK_SIZE)
        return 0 < compute_s < move_s

    def _note_used(self, keys: Sequence[bytes]) -> None:
        if self._preloaded and self._tiers is not None:
            used = self._preloaded.intersection(keys)
            self._tiers.counters.num_preload_hits += len(used)
            self._preloaded -= used
