"""Which KV blocks hold the positions of one sequence, as the int32 row an executor reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE


def num_blocks_for(num_tokens: int) -> int:
    """Blocks that `num_tokens` positions fill."""
    return -(-num_tokens // BLOCK_SIZE)


class TableBoard:
    """The tables of many sequences as rows of one int32 array, so that those of a step are gathered in one call.

    A cell that no table fills is 0. Rows are taken by the tables themselves.
    """

    __slots__ = ("_free", "cells")

    def __init__(self) -> None:
        self.cells: NDArray[np.int32] = np.zeros((1, 8), dtype=np.int32)
        self._free = [0]

    def take_row(self) -> int:
        """A row of zeros."""
        if not self._free:
            num_rows = len(self.cells)
            self.cells = np.concatenate((self.cells, np.zeros_like(self.cells)))
            self._free = list(range(2 * num_rows - 1, num_rows - 1, -1))
        return self._free.pop()

    def give_back(self, row: int) -> None:
        """The row holds zeros again."""
        self._free.append(row)

    def widen(self, width: int) -> None:
        """Have at least so many cells a row."""
        missing = max(width, 2 * self.cells.shape[1]) - self.cells.shape[1]
        self.cells = np.pad(self.cells, ((0, 0), (0, missing)))

    def gather(self, tables: "Sequence[BlockTable]") -> NDArray[np.int32]:
        """Tables of this board, none of them empty, as rows padded with 0: int32 (tables, longest)."""
        width = max(table.num_entries for table in tables)
        return np.ascontiguousarray(self.cells[[table.row for table in tables], :width])


class BlockTable:
    """Entry b is the block of positions [16 b, 16 b + 16), -1 once it was dropped.

    `drop` leaves a hole; `keep` closes the ranks, and every position after that has its slot `num_removed` blocks
    earlier. Knows nothing of holders: whoever extends it holds them.

    Args:
        board: where it is written; None: one of its own.
    """

    __slots__ = ("_num_passed", "board", "num_entries", "num_held", "num_removed", "row")

    def __init__(self, board: TableBoard | None = None) -> None:
        self.board = TableBoard() if board is None else board
        self.row = -1  # none while the table is empty
        self._num_passed = 0  # entries below this were offered to `drop`
        self.num_entries = 0
        self.num_removed = 0
        self.num_held = 0  # entries that are blocks

    @property
    def entries(self) -> NDArray[np.int32]:
        """The blocks in order, int32 (num_entries,); a view that the next `extend` may leave behind."""
        return self.board.cells[self.row, : self.num_entries]

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
        if self.row < 0 and total:
            self.row = self.board.take_row()
        if total > self.board.cells.shape[1]:
            self.board.widen(total)
        self.board.cells[self.row, self.num_entries : total] = blocks
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
        self.entries[fresh] = -1
        self._num_passed = dead.stop
        self.num_held -= len(blocks)
        return blocks

    def keep(self, indexes: Sequence[int]) -> list[int]:
        """Take out all entries but these (ascending), and return the blocks that go."""
        kept = self.entries[list(indexes)]
        gone = np.delete(self.entries, indexes)
        self.entries[: len(kept)] = kept
        self.entries[len(kept) :] = 0
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
        if self.row >= 0:
            self.entries[:] = 0
            self.board.give_back(self.row)
            self.row = -1
        self.num_entries = self.num_removed = self.num_held = self._num_passed = 0
        return blocks


def _present(entries: NDArray[np.int32]) -> list[int]:
    return [block for block in entries.tolist() if block >= 0]
