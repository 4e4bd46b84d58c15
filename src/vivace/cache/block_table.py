"""Which KV blocks hold the positions of one sequence, as the int32 row an executor reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE


def num_blocks_for(num_tokens: int) -> int:
    """Blocks that `num_tokens` positions fill."""
    return -(-num_tokens // BLOCK_SIZE)


class BlockTable:
    """Entry b is the block of positions [16 b, 16 b + 16). Knows nothing of holders: whoever extends it holds them."""

    __slots__ = ("_entries", "num_blocks")

    def __init__(self) -> None:
        self._entries: NDArray[np.int32] = np.zeros(8, dtype=np.int32)
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

    def clear(self) -> list[int]:
        """Empty the table and return what it held, in order."""
        blocks: list[int] = self.entries.tolist()
        self.num_blocks = 0
        return blocks
