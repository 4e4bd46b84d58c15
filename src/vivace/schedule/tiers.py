"""When blocks are worth moving: to a lower tier when a pool forgets them, and back before a sequence starts.

Moving is compared with computing again, both as measured on this machine (schedule/step_cost.py, cache/tiers.py). Until
both are known blocks are moved. A prefix comes back where every kind of layers has what its rows see.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Rows
from functools import partial

from vivace.cache.policies import FULL_POLICY, KvPolicy
from vivace.cache.returns import ReturnPredictor
from vivace.cache.tiers import BlockTiers, name_of
from vivace.schedule.estimates import Estimates
from vivace.schedule.layer_blocks import MISSING, LayerBlocks
from vivace.schedule.prefixes import Found, PrefixIndex
from vivace.types.step import BLOCK_SIZE, BlockContent

PRELOAD_SHARE = 0.25  # of the blocks that can be handed out, for one conversation that has not come yet
ENDS_KEPT = 4  # a saved prefix can be gone on with from each of its last blocks: the next turn may write its end anew


class TierDesk:
    """Decides what moves between the pools and the tiers below them.

    Args:
        tiers: None: there are none, and nothing moves.
        kinds: whose forgotten blocks are kept.
        prefixes: finds what the pools have.
        estimates: what computing takes.
    """

    def __init__(
        self, tiers: BlockTiers | None, kinds: Rows[LayerBlocks], prefixes: PrefixIndex, estimates: Estimates
    ) -> None:
        self._tiers = tiers
        self._kinds = kinds
        self._prefixes = prefixes
        self._estimates = estimates
        self._preloaded: set[bytes] = set()
        self._returns = ReturnPredictor()
        for number, kind in enumerate(kinds if tiers is not None else ()):
            kind.pool.on_forget = partial(self._spill, number)

    def return_s(self, num_computed: int, num_held: Rows[int]) -> float:
        """Seconds until a sequence that gives up its blocks is where it was: by moving them, or by computing them.

        Where steps are not measured yet, the number of tokens stands in.

        Args:
            num_computed: its tokens.
            num_held: its blocks of each kind of layers.
        """
        compute_s = self._estimates.rows_s(0, num_computed)
        if compute_s == 0:
            return float(num_computed)
        if self._tiers is None:
            return compute_s
        move_s = sum(count * self._both_ways_s(kind) for kind, count in enumerate(num_held))
        rest_s = self._estimates.rows_s(num_computed // BLOCK_SIZE * BLOCK_SIZE, num_computed % BLOCK_SIZE)
        return min(compute_s, move_s + rest_s)

    def find(self, keys: Rows[bytes], policy: KvPolicy) -> Found:
        """The longest prefix that the pools have, and what the tiers have beyond it where moving takes less time.

        Nothing is held or moved yet.

        Args:
            keys: of the full blocks that may be found.
            policy: of the sequence.
        """
        num_here = self._prefixes.longest(keys, policy)
        here = self._prefixes.take(keys[:num_here], policy, num_here)
        if self._tiers is None or num_here == len(keys):
            return here
        num_stored = self._prefixes.longest(keys, policy, self._is_stored)
        if num_stored <= num_here:
            return here
        found = self._prefixes.take(keys[:num_stored], policy, num_here)
        tiers = Counter((self._tiers.tier_of(name), kind) for kind, name in _missing(found))
        move_s = sum(self._tiers.move_s(tier or "host", kind) * count for (tier, kind), count in tiers.items())
        return here if self._is_cheaper(num_here, num_stored - num_here, move_s) else found

    def bring(self, found: Found, num_keys: int) -> list[list[BlockContent]] | None:
        """The contents of the MISSING blocks of each kind; None when one is there no more, and so has to be found anew.

        Args:
            found: about to be held.
            num_keys: blocks of the prompt that could have been found.
        """
        contents: list[list[BlockContent]] = [[] for _ in self._kinds]
        if self._tiers is None:
            return contents
        for kind, name in _missing(found):
            come = self._tiers.fetch((name,))
            if not come:
                return None
            contents[kind] += come
        self._note_used(found.keys[: found.num_here])
        self._tiers.counters.num_wanted += num_keys - found.num_here + sum(len(each) for each in contents[1:])
        return contents

    def preload(self, keys: Rows[bytes], contents: Mapping[bytes, BlockContent], in_use: Rows[set[int]]) -> int:
        """Bring a prefix back to the pools as cached blocks before it is asked for; returns how many blocks it has.

        Takes blocks that nobody holds and never more than a share of them, so hints harm no running sequence.

        Args:
            keys: of the prefix.
            contents: blocks that were read from disk for it.
            in_use: blocks of each kind that a copy of the next step reads; they are not written.
        """
        num_here = self._prefixes.longest(keys, FULL_POLICY)
        if self._tiers is None:
            return num_here
        tiers = self._tiers

        def in_memory(key: bytes, kind: int) -> bool:
            name = name_of(key, kind)
            return name in contents or name in tiers.host

        most = num_here + int(self._kinds[0].pool.num_available * PRELOAD_SHARE)
        count = max(num_here, self._prefixes.longest(keys[:most], FULL_POLICY, in_memory))
        found = self._prefixes.take(keys[:count], FULL_POLICY, num_here)
        rooms = [int(kind.pool.num_available * PRELOAD_SHARE) for kind in self._kinds]
        if any(blocks.count(MISSING) > room for blocks, room in zip(found.blocks, rooms, strict=True)):
            return num_here
        # before room is made: what leaves the pools may push them out of memory
        come: list[list[BlockContent | None]] = [[] for _ in self._kinds]
        for kind, name in _missing(found):
            content = contents.get(name)
            come[kind].append(tiers.host.get(name) if content is None else content)
        loaded = [self._load(kind, found, each, in_use[kind]) for kind, each in enumerate(come)]
        return count if all(loaded) else num_here

    def note_active(self, keys: Rows[bytes]) -> None:
        """A sequence with these block keys gives up its blocks."""
        if self._tiers is not None:
            self._returns.note_active(keys)

    def preload_expected(self, in_use: Rows[set[int]]) -> int:
        """Bring back from host memory who is likely to return, while nobody needs the engine; returns how many blocks.

        All of them together take no more than a share of the pool, so that none pushes out another.
        """
        if self._tiers is None:
            return 0
        num_before = self._tiers.counters.num_preloaded
        for keys in self._returns.expected(int(self._kinds[0].pool.num_blocks * PRELOAD_SHARE)):
            self.preload(keys, {}, in_use)
        return self._tiers.counters.num_preloaded - num_before

    def names_to_bring(self, keys: Rows[bytes]) -> list[bytes]:
        """Names of what the pools lack of a prefix and the tiers have."""
        count = self._prefixes.longest(keys, FULL_POLICY, self._is_stored)
        return [name for _, name in _missing(self._prefixes.take(keys[:count], FULL_POLICY, 0))]

    def keep_on_disk(self, keys: Rows[bytes]) -> tuple[tuple[bytes, ...], int]:
        """Send a computed prefix to the disk and pin it there.

        Returns:
            The names of what is kept, and the number of blocks from the first on that are.
        """
        assert self._tiers is not None, "there is no disk"
        main = self._kinds[0]
        names = self._tiers.keep_on_disk(keys, main.pool.find_each(keys))
        num_kept = len(names)
        for number, kind in enumerate(self._kinds[1:], 1):
            first = kind.policy(FULL_POLICY).dead_blocks(max(0, num_kept - ENDS_KEPT) * BLOCK_SIZE).stop
            latest_first = keys[first:num_kept][::-1]
            local_names = [name_of(key, number) for key in latest_first]
            names += self._tiers.keep_on_disk(local_names, kind.pool.find_each(latest_first), number)
        return names, num_kept

    def forget(self) -> None:
        """Trust nothing in host memory any more."""
        self._preloaded.clear()
        if self._tiers is not None:
            self._tiers.forget_host()

    def _load(self, number: int, found: Found, contents: Rows[BlockContent | None], in_use: set[int]) -> bool:
        """Fill blocks of a kind with what is MISSING and let them be found; False when that is not possible now."""
        assert self._tiers is not None
        pool, blocks = self._kinds[number].pool, found.blocks[number]
        held = [block for block in blocks if block >= 0]
        pool.retain(held)
        fresh = pool.allocate(len(contents)) or []
        is_possible = len(fresh) == len(contents) and not in_use.intersection(fresh)
        depths = [depth for depth, block in enumerate(blocks) if block == MISSING]
        for depth, block, content in zip(depths, fresh, contents, strict=False) if is_possible else ():
            assert content is not None, "it was in memory a moment ago"
            self._tiers.write(block, content, number)
            pool.publish(block, found.keys[depth], depth)
        if number == 0 and is_possible:
            self._preloaded.update(found.keys[depth] for depth in depths)
            self._tiers.counters.num_preloaded += len(fresh)
        pool.release([*held, *fresh])
        return is_possible

    def _spill(self, kind: int, block: int, key: bytes, depth: int) -> None:
        assert self._tiers is not None
        if kind == 0:
            self._preloaded.discard(key)
        if self._is_cheaper(depth, 1, self._both_ways_s(kind)):
            self._tiers.counters.num_not_spilled += 1
        else:
            self._tiers.spill(block, name_of(key, kind), kind)

    def _both_ways_s(self, kind: int) -> float:
        """Seconds to move a block to host memory and back."""
        assert self._tiers is not None
        return self._tiers.move_s("spill", kind) + self._tiers.move_s("host", kind)

    def _is_stored(self, key: bytes, kind: int) -> bool:
        assert self._tiers is not None
        return self._tiers.tier_of(name_of(key, kind)) is not None

    def _is_cheaper(self, first_block: int, num_blocks: int, move_s: float) -> bool:
        """Whether computing blocks takes less time than moving them."""
        compute_s = self._estimates.rows_s(first_block * BLOCK_SIZE, num_blocks * BLOCK_SIZE)
        return 0 < compute_s < move_s

    def _note_used(self, keys: Rows[bytes]) -> None:
        if self._preloaded and self._tiers is not None:
            used = self._preloaded.intersection(keys)
            self._tiers.counters.num_preload_hits += len(used)
            self._preloaded -= used


def _missing(found: Found) -> list[tuple[int, bytes]]:
    """(kind, name) of every MISSING block, in the order of the prefix within a kind."""
    return [
        (kind, name_of(key, kind))
        for kind, blocks in enumerate(found.blocks)
        for key, block in zip(found.keys, blocks, strict=True)
        if block == MISSING
    ]
