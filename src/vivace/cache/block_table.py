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

    Knows nothing of holders: whoever extends it holds them.
    """

    __slots__ = ("_entries", "_num_passed", "num_blocks")

    def __init__(self) -> None:
        self._entries: NDArray[np.int32] = np.zeros(8, dtype=np.int32)
        self._num_passed = 0  # entries below this were offered to `drop`
        self.num_blocks = 0

    @property
    def entries(self) -> NDArray[np.int32]:
        """The blocks in order, int32 (num_blocks,); a view that the next `extend` may leave behind."""
        return self._entries[: self.num_blocks]

    @property
    def num_slots(self) -> int:
        """Positions the blocks can hold."""
        return self.num_blocks * BLOCK_SIZE

    def extend(self, blocks: Sequence[int]) -> None:
        """Append blocks."""
        total = self.num_blocks + len(blocks)
        if total > len(self._entries):
            grown = np.zeros(max(total, 2 * len(self._entries)), dtype=np.int32)
            grown[: self.num_blocks] = self.entries
            self._entries = grown
        self._entries[self.num_blocks : total] = blocks
        self.num_blocks = total

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
        return blocks

    def clear(self) -> list[int]:
        """Empty the table and return what it held, in order."""
        blocks = _present(self.entries)
        self.num_blocks = self._num_passed = 0
        return blocks


def _present(entries: NDArray[np.int32]) -> list[int]:
    return [block for block in entries.tolist() if block >= 0]
