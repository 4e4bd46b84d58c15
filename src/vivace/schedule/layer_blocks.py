"""The blocks of one kind of layers: a pool, a table in every sequence, and the policy that says what stays in it.

A model has one kind, or two where some layers see a window of their own. A sequence under a policy that bounds what it
holds takes slots only for what it computes next; one that keeps everything takes those of all its known tokens.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import BlockTable, TableBoard, num_blocks_for
from vivace.cache.policies import EVERYTHING, KvPolicy, WindowPolicy
from vivace.schedule.sequence import Sequence
from vivace.types.step import BLOCK_SIZE

SLACK_BLOCKS = 2  # a chunk may begin and end within a block
DEAD, MISSING = -1, -2  # entries of a found prefix: no row sees the block; it has to be brought from a tier


@dataclass(frozen=True, slots=True)
class LocalBlocks:
    """The pool of what has blocks of its own, and which positions' blocks it needs (see `LocalLayers`)."""

    pool: BlockPool
    window: int
    first: int = 0


class LayerBlocks:
    """Fills and empties one table of each sequence.

    Args:
        pool: the blocks of these layers.
        chunk: most positions of a sequence in one step.
        local: the layers' own policy; None: they follow the policy of each sequence.
    """

    def __init__(self, pool: BlockPool, chunk: int, local: WindowPolicy | None = None) -> None:
        self.pool = pool
        self.board = TableBoard()
        self._chunk = chunk
        self._local = local

    def table(self, sequence: Sequence) -> BlockTable:
        """The table of a sequence for these layers."""
        return sequence.table if self._local is None else sequence.local_table

    def policy(self, policy: KvPolicy) -> KvPolicy:
        """What says which blocks of a sequence under a policy stay."""
        return policy if self._local is None else self._local

    def is_bounded(self, policy: KvPolicy) -> bool:
        """Whether a sequence under a policy holds no more than so much, however long it gets."""
        return self.policy(policy).most_held < EVERYTHING

    def most_blocks(self, sequence: Sequence, num_known: int) -> int:
        """Blocks that the sequence holds at most while no more than so many tokens are known."""
        return min(num_blocks_for(num_known), self._most_blocks(self.policy(sequence.policy)))

    def most_known(self, policy: KvPolicy) -> int:
        """Known tokens of a sequence that the pool can hold under a policy; the last one needs no slot."""
        fits = self._most_blocks(self._local or policy) <= self.pool.num_blocks
        return EVERYTHING if fits else self.pool.num_blocks * BLOCK_SIZE + 1

    def _most_blocks(self, policy: KvPolicy) -> int:
        return num_blocks_for(policy.most_held + self._chunk) + SLACK_BLOCKS

    def is_short(self, sequence: Sequence) -> bool:
        """Whether slots are missing for what may be computed in the next step."""
        return self._wanted(sequence) > self.table(sequence).num_slots

    def grow(self, sequence: Sequence, num_more: int = 0) -> bool:
        """Give a sequence the slots of what may be computed next, and of `num_more` tokens that are not known yet.

        Returns:
            False and no change when there are not enough blocks.
        """
        table = self.table(sequence)
        blocks = self.pool.allocate(max(0, num_blocks_for(self._wanted(sequence) + num_more) - table.num_blocks))
        if blocks is None:
            return False
        table.extend(blocks)
        return True

    def unclaimed(self, sequence: Sequence) -> int:
        """Blocks that a running sequence may yet take without knowing more tokens."""
        if not self.is_bounded(sequence.policy):
            return 0
        return max(0, self.most_blocks(sequence, sequence.num_known) - self.table(sequence).num_held)

    def num_wanted(self, sequence: Sequence, found: Rows[int]) -> int:
        """What starting a waiting sequence on found blocks takes of the pool, soon or later."""
        present = [block for block in found if block >= 0]
        most = self.most_blocks(sequence, sequence.num_known)
        return max(0, most - len(present)) + self.pool.num_cached_of(present)

    def start(self, sequence: Sequence, found: Rows[int]) -> list[int]:
        """Let the table begin with found blocks; `grow` follows. Returns the blocks to write MISSING ones to."""
        self.pool.retain(block for block in found if block >= 0)
        fresh = self.pool.allocate(found.count(MISSING))
        assert fresh is not None, "blocks were counted before"
        coming = iter(fresh)
        self.table(sequence).extend([next(coming) if block == MISSING else block for block in found])
        return fresh

    def fork(self, source: Sequence, sequence: Sequence) -> tuple[int, int]:
        """Share the full blocks of a computed prompt, less its last token.

        Returns:
            The block the prompt ends in, and the one of the new sequence for a copy of it.
        """
        num_shared = (source.num_prompt - 1) // BLOCK_SIZE
        theirs, table = self.table(source), self.table(sequence)
        shared = theirs.share(num_shared)
        self.start(sequence, shared)
        table.num_removed = theirs.num_removed
        own = self.pool.allocate(1)
        assert own is not None, "blocks were counted before"
        table.extend(own)
        return int(theirs.entries[num_shared - theirs.num_removed]), own[0]

    def give_back_dead(self, sequence: Sequence) -> None:
        """Take back the blocks that no row will see any more.

        The last computed row still counts as one that will: the other choices of a request compute it again.
        """
        dead = self.policy(sequence.policy).dead_blocks(max(0, sequence.num_computed - 1))
        if dead:
            self.pool.release(self.table(sequence).drop(dead))

    def publish(self, sequence: Sequence, first: int, end: int) -> None:
        """Let others find the blocks [first, end) of the sequence, by its keys."""
        entries = self.table(sequence).entries
        for depth in range(first, end):
            if entries[depth] >= 0:
                self.pool.publish(int(entries[depth]), sequence.keys[depth], depth)

    def clear(self, sequence: Sequence) -> None:
        """Take back everything."""
        self.pool.release(self.table(sequence).clear())

    def _wanted(self, sequence: Sequence) -> int:
        if self.policy(sequence.policy).most_held >= EVERYTHING:
            return sequence.num_known
        return min(sequence.num_known, sequence.num_computed + self._chunk)
