"""Which KV blocks hold the positions of one sequence, as the int32 row an executor reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE


def num_blocks_for(num_tokens: int) -> int:
    """Blocks that `num_tokens` positions fill."""
    return -(-num_tokens // BLOCK_SIZE)


class BlockTable:
    """Entry b is the block of positions [16 b, 16 b + 16), -1 once it was dropped.

    `drop` leaves a hole; `keep` closes the ranks, and every position after that has its slot `num_removed` blocks
    earlier. Knows nothing of holders: whoever extends it holds them.
    """

    __slots__ = ("_entries", "_num_passed", "num_entries", "num_held", "num_removed")

    def __init__(self) -> None:
        self._entries: NDArray[np.int32] = np.zeros(8, dtype=np.int32)
        self._num_passed = 0  # entries below this were offered to `drop`
        self.num_entries = 0
        self.num_removed = 0
        self.num_held = 0  # entries that are blocks

    @property
    def entries(self) -> NDArray[np.int32]:
        """The blocks in order, int32 (num_entries,); a view that the next `extend` may leave behind."""
        return self._entries[: self.num_entries]

    @property
    def num_blocks(self) -> int:
        """Blocks of all positions so far, those that were taken out included."""
        return self.num_entries + self.num_removed

    @property
    def num_slots(self) -> int:
        """Positions below it have their slot, or had it."""
        return (self.num_entries + self.num_removed) * BLOCK_SIZE

    def extend(self, blocks: Sequence[int]) -> None:
        """Append blocks; -1 for positions whose block is gone already."""
        total = self.num_entries + len(blocks)
        if total > len(self._entries):
            grown = np.zeros(max(total, 2 * len(self._entries)), dtype=np.int32)
            grown[: self.num_entries] = self.entries
            self._entries = grown
        self._entries[self.num_entries : total] = blocks
        self.num_entries = total
        self.num_held += sum(block >= 0 for block in blocks)

    def drop(self, dead: range) -> list[int]:
        """Take out the blocks of entries that nobody will see again, and return them.

        Args:
            dead: grows at its end alone from one call to the next, as a policy's `dead_blocks` does.
        """
        fresh = slice(max(dead.start, self._num_passed), dead.stop)
        if fresh.start >= fresh.stop:
            return []
        blocks = _present(self.entries[fresh])
        self._entries[fresh] = -1
        self._num_passed = dead.stop
        self.num_held -= len(blocks)
        return blocks

    def keep(self, indexes: Sequence[int]) -> list[int]:
        """Take out all entries but these (ascending), and return the blocks that go."""
        kept = self.entries[list(indexes)]
        gone = np.delete(self.entries, indexes)
        self._entries[: len(kept)] = kept
        self.num_removed += self.num_entries - len(kept)
        self.num_entries = len(kept)
        blocks = _present(gone)
        self.num_held -= len(blocks)
        return blocks

    def share(self, num_blocks: int) -> list[int]:
        """The entries of the first `num_blocks` blocks, those that were taken out left out."""
        entries: list[int] = self.entries[: num_blocks - self.num_removed].tolist()
        return entries

    def clear(self) -> list[int]:
        """Empty the table and return what it held, in order."""
        blocks = _present(self.entries)
        self.num_entries = self.num_removed = self.num_held = self._num_passed = 0
        return blocks


def _present(entries: NDArray[np.int32]) -> list[int]:
    return [block for block in entries.tolist() if block >= 0]
