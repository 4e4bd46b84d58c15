"""Which blocks a sequence gets, shares, publishes and gives back: all that the scheduler asks of a block pool.

Blocks are handed out whole or not at all, and given back in one place, `release`; what a policy has no more use for
goes back earlier, in `advance`. Decides nothing about who runs: that is the scheduler's.
"""

from collections.abc import Mapping

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import num_blocks_for
from vivace.cache.policies import KvPolicy
from vivace.schedule.preemption import Loss
from vivace.schedule.prefixes import PrefixIndex
from vivace.schedule.sequence import Sequence
from vivace.schedule.tiers import TierDesk
from vivace.types.request import GenerationRequest
from vivace.types.step import BLOCK_SIZE, BlockContent


class BlockDesk:
    """Fills and empties the block tables of sequences.

    Args:
        pool: the blocks; nobody else takes from it but the DraftDesk.
        policy: which blocks go back while their sequence still runs.
        tiers: where forgotten blocks go and come back from.
        prefix_cache: find the blocks of known prefixes again.
    """

    def __init__(self, pool: BlockPool, policy: KvPolicy, tiers: TierDesk, *, prefix_cache: bool) -> None:
        self._pool = pool
        self._policy = policy
        self._prefixes = PrefixIndex(pool, enabled=prefix_cache)
        self._tiers = tiers
        self._copies: list[tuple[int, int]] = []
        self._writes: list[tuple[int, BlockContent]] = []

    def find(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the first tokens of a waiting sequence already; they are not held yet."""
        return self._prefixes.find(sequence)

    def num_wanted(self, sequence: Sequence, found: list[int]) -> int:
        """What starting the sequence on found blocks would take from `num_available`."""
        num_new = num_blocks_for(sequence.num_known) - len(found)
        return num_new + self._pool.num_cached_of(found)

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out."""
        return self._pool.num_available

    def start(self, sequence: Sequence, found: list[int]) -> None:
        """Give a sequence the slots of all its known tokens, the first of them computed already."""
        self._pool.retain(found)
        stored = self._tiers.fetch(self._prefixes.keys_of(sequence), len(found))
        new = self._fill(sequence, found, num_blocks_for(sequence.num_known) - len(found))
        self._writes += zip(new, stored, strict=False)  # published once the step has run, and so never half written
        sequence.num_computed = (len(found) + len(stored)) * BLOCK_SIZE

    def fork(self, source: Sequence, sequence: Sequence) -> None:
        """Start another choice on the prompt that `source` has computed, less its last token.

        They share the full blocks; the one the prompt ends in is copied before the next step.
        """
        num_shared = (source.num_prompt - 1) // BLOCK_SIZE
        shared = source.table.entries[:num_shared].tolist()
        self._pool.retain(block for block in shared if block >= 0)
        (own,) = self._fill(sequence, shared, 1)
        sequence.num_computed = source.num_prompt - 1
        if sequence.num_computed % BLOCK_SIZE:
            self._copies.append((int(source.table.entries[num_shared]), own))

    def grow(self, sequence: Sequence) -> bool:
        """Give a running sequence the slots of its known tokens; False and no change when there are not enough."""
        blocks = self._pool.allocate(num_blocks_for(sequence.num_known) - sequence.table.num_blocks)
        if blocks is None:
            return False
        sequence.table.extend(blocks)
        return True

    def advance(self, sequence: Sequence) -> None:
        """The sequence has computed more: let others find its full blocks, and take back those no row will see."""
        if sequence.num_computed >= (sequence.num_published + 1) * BLOCK_SIZE:
            self._prefixes.publish(sequence)
            self._pool.release(sequence.table.drop(self._policy.dead_blocks(sequence.num_computed)))

    def release(self, sequence: Sequence) -> None:
        """Take back all blocks of a sequence; nothing of it is computed any more."""
        self._pool.release(sequence.table.clear())
        self._tiers.note_active(sequence.keys)
        sequence.num_computed = 0

    def loss_of(self, sequence: Sequence) -> Loss:
        """What taking the blocks of a running sequence would cost, and bring."""
        num_freed = self._pool.num_held_once(sequence.table.entries.tolist())
        return Loss(self._tiers.return_s(sequence.num_computed), num_freed)

    def take_copies(self) -> tuple[tuple[int, int], ...]:
        """Blocks (source, target) to copy before the next step."""
        copies = tuple(self._copies)
        self._copies.clear()
        return copies

    def take_writes(self) -> tuple[tuple[int, BlockContent], ...]:
        """Blocks to fill before the next step, after its copies, with what the tiers kept."""
        writes = tuple(self._writes)
        self._writes.clear()
        return writes

    def keys_of(self, request: GenerationRequest) -> list[bytes]:
        """Keys of the full blocks of a request's prompt."""
        return self._prefixes.keys_of_request(request)

    def preload(self, keys: list[bytes], contents: Mapping[bytes, BlockContent]) -> int:
        """Bring a prefix back before it is asked for; returns how many of its blocks are in the pool."""
        return self._tiers.preload(keys, contents, {source for source, _ in self._copies})

    def preload_expected(self) -> int:
        """Bring back who is likely to return; returns how many blocks came."""
        return self._tiers.preload_expected({source for source, _ in self._copies})

    def forget(self) -> None:
        """Trust nothing that was computed any more."""
        self._pool.forget_all()
        self._tiers.forget()

    def _fill(self, sequence: Sequence, shared: list[int], num_new: int) -> list[int]:
        """Shared blocks (already retained) and new ones; returns the new ones."""
        blocks = self._pool.allocate(num_new)
        assert blocks is not None, "blocks were counted before"
        sequence.table.extend(shared)
        sequence.table.extend(blocks)
        sequence.num_published = len(shared)
        return blocks
