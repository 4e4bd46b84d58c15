"""Where a draft pass keeps keys and values: in a pool of the draft model's own, or in the target's.

A draft model follows each sequence by itself: what it has computed is compared with what became known, so drafts that
fell, a sequence that was pre-empted, a prefix that the target found in its cache and a long prompt are one case.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import BlockTable, num_blocks_for
from vivace.types.draft import DraftPlace


class DraftMemory(Protocol):
    """Keys and values of a draft pass."""

    def num_pending(self, place: DraftPlace) -> int:
        """Known tokens that have to be computed before the first draft; at least 1, the last one."""
        ...

    def reserve(self, place: DraftPlace, num_positions: int) -> NDArray[np.int32] | None:
        """The block table with room for so many positions, int32 (num_blocks,); None where there is none."""
        ...

    def note(self, place: DraftPlace, start: int, tokens: list[int]) -> None:
        """These tokens were computed, from position `start` on; those beyond the known ones are guesses."""
        ...

    def forget(self, sequence_id: int) -> None:
        """The sequence has ended."""
        ...


class TargetMemory:
    """The target's own blocks: an early exit finds all but the last token computed, and leaves nothing wrong behind.

    What it writes for a draft that falls lies beyond the computed tokens, where the next step writes.
    """

    def num_pending(self, place: DraftPlace) -> int:
        """One: the target has computed the others."""
        return 1

    def reserve(self, place: DraftPlace, num_positions: int) -> NDArray[np.int32] | None:
        """The stream's own table: the scheduler has made room for its drafts."""
        table = place.block_table
        return table if table is not None and len(table) >= num_blocks_for(num_positions) else None

    def note(self, place: DraftPlace, start: int, tokens: list[int]) -> None:
        """Nothing is kept."""

    def forget(self, sequence_id: int) -> None:
        """Nothing is kept."""


@dataclass(slots=True)
class _Computed:
    """Tokens of one sequence whose keys and values are in the pool; the first `num_sure` are known to be right."""

    tokens: list[int] = field(default_factory=list)
    num_sure: int = 0
    table: BlockTable = field(default_factory=BlockTable)


class OwnMemory:
    """A pool of the draft model's own. When it is full, the sequence that was quiet longest computes again later.

    Args:
        num_blocks: of the draft's executor.
    """

    def __init__(self, num_blocks: int) -> None:
        self._pool = BlockPool(num_blocks)
        self._sequences: OrderedDict[int, _Computed] = OrderedDict()

    @property
    def num_held(self) -> int:
        """Blocks in use."""
        return self._pool.num_held

    def num_pending(self, place: DraftPlace) -> int:
        """Tokens that the draft model has not seen: all of them at first."""
        mine = self._sequences.get(place.sequence_id)
        return len(place.tokens) if mine is None else len(place.tokens) - self._check(mine, place)

    def reserve(self, place: DraftPlace, num_positions: int) -> NDArray[np.int32] | None:
        """Blocks of the pool, at the cost of sequences that were used less recently than this step's."""
        mine = self._sequences.setdefault(place.sequence_id, _Computed())
        self._sequences.move_to_end(place.sequence_id)
        wanted = num_blocks_for(num_positions) - mine.table.num_blocks
        if wanted > 0:
            while (blocks := self._pool.allocate(wanted)) is None:
                oldest = next(iter(self._sequences))
                if oldest == place.sequence_id:
                    return None
                self.forget(oldest)
            mine.table.extend(blocks)
        return mine.table.entries

    def note(self, place: DraftPlace, start: int, tokens: list[int]) -> None:
        """Remember what was computed."""
        mine = self._sequences.get(place.sequence_id)
        if mine is not None:
            mine.tokens[start:] = tokens

    def forget(self, sequence_id: int) -> None:
        """Give the blocks back."""
        mine = self._sequences.pop(sequence_id, None)
        if mine is not None:
            self._pool.release(mine.table.clear())

    @staticmethod
    def _check(mine: _Computed, place: DraftPlace) -> int:
        """How many computed tokens are those that are known; the last known one is to be computed again."""
        most = min(len(mine.tokens), len(place.tokens) - 1)
        count = min(mine.num_sure, most)
        while count < most and mine.tokens[count] == place.tokens[count]:
            count += 1
        mine.num_sure = count
        del mine.tokens[count:]
        return count
