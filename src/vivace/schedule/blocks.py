"""Which blocks a sequence gets, shares, publishes and gives back: all that the scheduler asks of the block pools.

Blocks are handed out whole or not at all, and given back in one place, `release`; what a policy has no more use for
goes back earlier, in `advance` and `decide`. Decides nothing about who runs: that is the scheduler's.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import BlockTable
from vivace.cache.policies import KvPolicy, WindowPolicy
from vivace.cache.retention import Retention
from vivace.cache.tiers import BlockTiers
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.estimates import Estimates
from vivace.schedule.layer_blocks import LayerBlocks, LocalBlocks
from vivace.schedule.preemption import Loss
from vivace.schedule.prefixes import Found, PrefixIndex
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.schedule.tiers import TierDesk
from vivace.types.request import GenerationRequest
from vivace.types.step import BLOCK_SIZE, BlockContent, SequenceShare

SHARED_BLOCKS = 2  # fewer that are being computed are computed again: a step of its own costs as much
Copies = tuple[tuple[int, int], ...]
"""Blocks (source, target)."""
Writes = tuple[tuple[int, BlockContent], ...]


class BlockDesk:
    """Fills and empties the block tables of sequences.

    Args:
        config: sizes.
        pool: the blocks; nobody else takes from it.
        tiers: where forgotten blocks go and come back from; None: they are computed again.
        estimates: what computing takes.
        local: the blocks of layers that see a window of their own, if the model has such.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        pool: BlockPool,
        tiers: BlockTiers | None,
        estimates: Estimates,
        local: LocalBlocks | None = None,
    ) -> None:
        chunk = min(config.max_chunk_tokens, config.max_batch_tokens)
        self._kinds = [LayerBlocks(pool, chunk)]
        if local is not None:
            self._kinds.append(LayerBlocks(local.pool, chunk, WindowPolicy(local.window, sinks=local.first)))
        self._prefixes = PrefixIndex(self._kinds, config.policy, enabled=config.prefix_cache)
        self._tiers = TierDesk(tiers, self._kinds, self._prefixes, estimates)
        self._due: list[Sequence] = []
        self._copies: tuple[list[tuple[int, int]], ...] = ([], [])
        self._writes: tuple[list[tuple[int, BlockContent]], ...] = ([], [])
        self._bounded: dict[int, Sequence] = {}
        self._uncovered: dict[int, Sequence] = {}  # they run, and know tokens that have no slots yet

    @property
    def pools(self) -> tuple[BlockPool, ...]:
        """The pool of each kind of layers."""
        return tuple(kind.pool for kind in self._kinds)

    def most_known(self, policy: KvPolicy) -> int:
        """Known tokens of one sequence under a policy that the pools can hold."""
        return min(kind.most_known(policy) for kind in self._kinds)

    def find(self, sequence: Sequence) -> Found:
        """Blocks that hold the first tokens of a waiting sequence already; they are not held yet."""
        return self._tiers.find(self._prefixes.keys_of(sequence), sequence.policy)

    def is_coming(self, sequence: Sequence, found: Found, others: Iterable[Sequence]) -> bool:
        """Whether one of those that run is computing a prefix of a waiting sequence that is worth waiting for."""
        num_found = len(found.keys)
        return any(self._prefixes.num_coming(sequence, num_found, other) >= SHARED_BLOCKS for other in others)

    def may_start(self, sequence: Sequence, found: Found, headroom: int) -> bool:
        """Whether a waiting sequence may take its blocks and leave `headroom` of them to those that run."""
        wanted = (kind.num_wanted(sequence, blocks) for kind, blocks in zip(self._kinds, found.blocks, strict=True))
        return self._has_room(wanted, headroom)

    def may_fork(self, sequence: Sequence, headroom: int) -> bool:
        """As `may_start`, for a choice that shares a computed prompt."""
        most = (
            kind.most_blocks(sequence, sequence.num_known) if kind.is_bounded(sequence.policy) else 1
            for kind in self._kinds
        )
        return self._has_room(most, headroom)

    def _has_room(self, wanted: Iterable[int], headroom: int) -> bool:
        for kind, count in zip(self._kinds, wanted, strict=True):
            unclaimed = sum(kind.unclaimed(entry) for entry in self._bounded.values())
            if count + headroom + unclaimed > kind.pool.num_available:
                return False
            headroom = 0  # what local layers hold does not grow with the tokens known
        return True

    def start(self, sequence: Sequence, found: Found) -> bool:
        """Give a sequence its blocks, the first of them computed already.

        Returns:
            False and no change when a tier has lost what it had: to be found anew.
        """
        contents = self._tiers.bring(found, len(self._prefixes.keys_of(sequence)))
        if contents is None:
            return False
        sequence.num_computed = found.num_tokens
        sequence.num_published = found.num_here  # what is written is published once the step has run: never half done
        sequence.retention = _new_retention(sequence)
        for number, kind in enumerate(self._kinds):
            targets = kind.start(sequence, found.blocks[number])
            self._writes[number].extend(zip(targets, contents[number], strict=True))
        for kind in self._kinds:
            has_grown = kind.grow(sequence)
            assert has_grown, "blocks were counted before"
        self._note_covered(sequence)
        self._note_bounded(sequence)
        return True

    def fork(self, source: Sequence, sequence: Sequence) -> None:
        """Start another choice on the prompt that `source` has computed, less its last token.

        They share the full blocks; those the prompt ends in are copied before the next step.
        """
        sequence.num_computed = source.num_prompt - 1
        sequence.num_published = sequence.num_computed // BLOCK_SIZE
        sequence.retention = None if source.retention is None else source.retention.fork()
        for kind, copies in zip(self._kinds, self._copies, strict=False):
            pair = kind.fork(source, sequence)
            if sequence.num_computed % BLOCK_SIZE:
                copies.append(pair)
        self._note_covered(sequence)
        self._note_bounded(sequence)

    def new_tables(self) -> tuple[BlockTable, BlockTable]:
        """Empty tables for a sequence, of the main and of the local layers."""
        return BlockTable(self._kinds[0].board), BlockTable(self._kinds[-1].board)

    def short_ones(self) -> list[Sequence]:
        """Running sequences that lack slots for what they may compute in the next step.

        Only those that know tokens without slots are looked at: of streams, one in BLOCK_SIZE a step.
        """
        return [entry for entry in self._uncovered.values() if any(kind.is_short(entry) for kind in self._kinds)]

    def note_uncovered(self, sequence: Sequence) -> None:
        """A running sequence knows more tokens than it has slots for."""
        self._uncovered[sequence.sequence_id] = sequence

    def grow(self, sequence: Sequence) -> bool:
        """Give a running sequence those slots; False when there are not enough blocks."""
        has_grown = all(kind.grow(sequence) for kind in self._kinds)
        self._note_covered(sequence)
        return has_grown

    def make_room(self, sequence: Sequence, num_more: int) -> int:
        """Slots for tokens that may follow the known ones, as many of `num_more` as there are blocks for."""
        for kind in self._kinds:
            kind.grow(sequence, num_more)
        self._note_covered(sequence)
        return min(num_more, sequence.num_covered - sequence.num_known)

    def make_room_for_next(self, sequences: Iterable[Sequence]) -> bool:
        """Give each a slot for the one token that is not known yet; False, and no change, where blocks are short."""
        lacking = [sequence for sequence in sequences if sequence.num_known >= sequence.num_covered]
        if any(kind.pool.num_available < len(lacking) for kind in self._kinds):
            return False
        return all(self.make_room(sequence, 1) for sequence in lacking)

    @property
    def moves(self) -> bool:
        """Whether blocks are to be copied, filled or thinned out before the next step."""
        return bool(self._due) or any(self._copies) or any(self._writes)

    def advance(self, sequence: Sequence) -> None:
        """The sequence has computed more: let others find its full blocks, and take back those no row will see."""
        if sequence.num_computed >= (sequence.num_published + 1) * BLOCK_SIZE:
            self._prefixes.publish(sequence)
            for kind in self._kinds:
                kind.give_back_dead(sequence)
            if sequence.num_computed == sequence.next_decision:
                self._due.append(sequence)

    def note_observed(self, sequence: Sequence, share: SequenceShare, masses: NDArray[np.float32]) -> None:
        """Take the masses of a share's observed rows. Those of drafts that fall are noted again when it matters."""
        if sequence.retention is not None:
            positions = sequence.retention.observed(share.start, share.start + share.count)
            for position, mass in zip(positions, masses, strict=True):
                sequence.retention.note(position, mass)

    def decide(self) -> None:
        """Thin out the tables of sequences that are about to compute the row after a decision.

        Not before: the other choices of a request compute the last row of their prompt under the old table.
        """
        main = self._kinds[0]
        for sequence in self._due:
            is_due = sequence.state is SequenceState.RUNNING and sequence.num_computed == sequence.next_decision
            if is_due and sequence.retention is not None:
                main.pool.release(sequence.retention.decide(sequence.table))
        self._due.clear()

    def release(self, sequence: Sequence) -> None:
        """Take back all blocks of a sequence; nothing of it is computed any more."""
        for kind in self._kinds:
            kind.clear(sequence)
        self._tiers.note_active(sequence.keys)
        sequence.num_computed = 0
        sequence.retention = None
        self._bounded.pop(sequence.sequence_id, None)
        self._uncovered.pop(sequence.sequence_id, None)

    def loss_of(self, sequence: Sequence) -> Loss:
        """What taking the blocks of a running sequence would cost, and bring."""
        held = (block for block in sequence.table.entries.tolist() if block >= 0)
        num_freed = self._kinds[0].pool.num_held_once(held)
        num_held = [kind.table(sequence).num_held for kind in self._kinds]
        return Loss(self._tiers.return_s(sequence.num_computed, num_held), num_freed)

    def take_copies(self) -> tuple[Copies, Copies]:
        """Blocks to copy before the next step, of the main and of the local layers."""
        main, local = (tuple(pairs) for pairs in self._copies)
        for pairs in self._copies:
            pairs.clear()
        return main, local

    def take_writes(self) -> tuple[Writes, Writes]:
        """Blocks to fill before the next step, after its copies, with what the tiers kept; as `take_copies`."""
        main, local = (tuple(writes) for writes in self._writes)
        for writes in self._writes:
            writes.clear()
        return main, local

    def keys_of(self, request: GenerationRequest) -> list[bytes]:
        """Keys of the full blocks of a request's prompt."""
        return self._prefixes.keys_of_request(request)

    def preload(self, keys: list[bytes], contents: Mapping[bytes, BlockContent]) -> int:
        """Bring a prefix back before it is asked for; returns how many of its blocks are in the pool."""
        return self._tiers.preload(keys, contents, self._copied())

    def preload_expected(self) -> int:
        """Bring back who is likely to return; returns how many blocks came."""
        return self._tiers.preload_expected(self._copied())

    def names_to_bring(self, keys: list[bytes]) -> list[bytes]:
        """Names of what the pools lack of a prefix and the tiers have."""
        return self._tiers.names_to_bring(keys)

    def keep_on_disk(self, keys: list[bytes]) -> tuple[tuple[bytes, ...], int]:
        """Pin a computed prefix on the disk; returns the names of what is kept, and how many of the first blocks."""
        return self._tiers.keep_on_disk(keys)

    def _copied(self) -> list[set[int]]:
        """Blocks of each kind that a copy of the next step reads."""
        return [{source for source, _ in copies} for _, copies in zip(self._kinds, self._copies, strict=False)]

    def forget(self) -> None:
        """Trust nothing that was computed any more."""
        for pool in self.pools:
            pool.forget_all()
        self._tiers.forget()

    def _note_covered(self, sequence: Sequence) -> None:
        sequence.num_covered = min(kind.table(sequence).num_slots for kind in self._kinds)
        if sequence.num_known > sequence.num_covered:
            self._uncovered[sequence.sequence_id] = sequence
        else:
            self._uncovered.pop(sequence.sequence_id, None)

    def _note_bounded(self, sequence: Sequence) -> None:
        if any(kind.is_bounded(sequence.policy) for kind in self._kinds):
            self._bounded[sequence.sequence_id] = sequence


def _new_retention(sequence: Sequence) -> Retention | None:
    pruning = sequence.policy.pruning
    return None if pruning is None else Retention(pruning)
