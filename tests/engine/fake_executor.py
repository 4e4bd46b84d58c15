"""A fast, deterministic executor whose logits are a hash of the history it reads back through the KV pages.

The value it writes for a position depends on the token, the position and everything read before it, as keys and values
of a deep model do. So a wrong block, a wrong position, a block shared by two writers or a stale page changes the tokens
that follow. Some of its layers may see a window only and have blocks of their own. Faults can be planted to see how the
engine bears them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE, ForwardBatch, LocalLayers

MASK = (1 << 64) - 1
LOCAL_WINDOW = 20
WEIGHTS = np.arange(1 << 16, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def mix(value: int) -> int:
    value = ((value ^ (value >> 31)) * 0x9FB21C651E98DF25) & MASK
    return value ^ (value >> 28)


class FakeExecutor:
    """See the module. `before_forward` may raise; `poison` turns a row's logits into NaN when the row's token is it.

    With `num_local_blocks` a row also reads what the last `LOCAL_WINDOW` positions wrote to blocks of local layers.
    """

    def __init__(
        self,
        num_blocks: int = 64,
        max_rows: int = 512,
        vocab_size: int = 32,
        poison: int | None = None,
        before_forward: Callable[[ForwardBatch], None] = lambda batch: None,
        *,
        num_local_blocks: int = 0,
    ) -> None:
        self.vocab_size, self.num_blocks, self.max_rows = vocab_size, num_blocks, max_rows
        self.num_local_blocks = num_local_blocks
        self.poison = poison
        self.before_forward = before_forward
        self.batch_sizes: list[int] = []
        self.is_closed = False
        self._pages = np.zeros((num_blocks, BLOCK_SIZE), dtype=np.uint64)
        self._local_pages = np.zeros((num_local_blocks, BLOCK_SIZE), dtype=np.uint64)
        self._columns = np.arange(1, vocab_size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    @property
    def local_layers(self) -> LocalLayers | None:
        """What an engine has to know of them."""
        return LocalLayers(self.num_local_blocks, LOCAL_WINDOW) if self.num_local_blocks else None

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        self.before_forward(batch)
        self._check(batch)
        self.batch_sizes.append(len(batch.token_ids))
        states: list[int] = []
        starts, tokens = batch.sequence_starts.tolist(), batch.token_ids.tolist()
        for index, (first, end) in enumerate(pairwise(starts)):
            states += self._extend(tokens[first:end], int(batch.positions[first]), batch, index)
        wanted = batch.logit_rows.tolist()
        chosen = np.array([states[row] for row in wanted], dtype=np.uint64)
        mixed = (self._columns ^ chosen[:, None]) * np.uint64(0xD6E8FEB86659FD93)
        logits = ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 22)) - np.float32(2)
        if self.poison is not None:
            logits[[tokens[row] == self.poison for row in wanted]] = np.nan
        return logits

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        for source, target in pairs:
            self._pages[target] = self._pages[source]

    def copy_local_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        for source, target in pairs:
            self._local_pages[target] = self._local_pages[source]

    @property
    def bytes_per_block(self) -> int:
        return BLOCK_SIZE * 8

    @property
    def bytes_per_local_block(self) -> int:
        return BLOCK_SIZE * 8 if self.num_local_blocks else 0

    def read_block(self, block: int) -> NDArray[np.uint8]:
        return self._pages[block].copy().view(np.uint8)

    def write_block(self, block: int, content: NDArray[np.uint8]) -> None:
        self._pages[block] = content.view(np.uint64)

    def read_local_block(self, block: int) -> NDArray[np.uint8]:
        return self._local_pages[block].copy().view(np.uint8)

    def write_local_block(self, block: int, content: NDArray[np.uint8]) -> None:
        self._local_pages[block] = content.view(np.uint64)

    def close(self) -> None:
        self.is_closed = True

    def _extend(self, tokens: list[int], start: int, batch: ForwardBatch, index: int) -> list[int]:
        """Write the pages of one sequence's rows; returns the state after each row."""
        table = batch.block_tables[index].tolist()
        pages = self._pages
        history = pages[table[: -(-start // BLOCK_SIZE)]].ravel()[:start] if start else pages[:0].ravel()
        state = int((history * WEIGHTS[:start]).sum()) & MASK
        near = self._near(batch, index, start)
        states, values = [], []
        for position, token in enumerate(tokens, start):
            seen = mix(sum(near[-LOCAL_WINDOW + 1 :]) & MASK) if self.num_local_blocks else 0
            value = mix(state ^ mix(token * 0x10001 + position + 1) ^ seen)
            values.append(value)
            near.append(mix(value + position))
            state = (state + value * (2 * position + 1)) & MASK
            states.append(state)
        _write(self._pages, table, start, values)
        if batch.local_tables is not None:
            _write(self._local_pages, batch.local_tables[index].tolist(), start, near[-len(tokens) :])
        return states

    def _near(self, batch: ForwardBatch, index: int, start: int) -> list[int]:
        """What the last positions before `start` wrote for local layers."""
        if batch.local_tables is None:
            return []
        positions = range(max(0, start - LOCAL_WINDOW + 1), start)
        table = batch.local_tables[index].tolist()
        assert all(table[position // BLOCK_SIZE] >= 0 for position in positions), "a block went too early"
        return [int(self._local_pages[table[p // BLOCK_SIZE], p % BLOCK_SIZE]) for p in positions]

    def _check(self, batch: ForwardBatch) -> None:
        """What every executor may rely on."""
        starts, positions = batch.sequence_starts.tolist(), batch.positions.tolist()
        arrays = (batch.token_ids, batch.positions, batch.sequence_starts, batch.block_tables)
        assert all(array.dtype == np.int32 for array in arrays)
        assert len(batch.token_ids) == len(positions) == starts[-1] <= self.max_rows
        assert batch.block_tables.min() >= 0 and batch.block_tables.max() < self.num_blocks
        logit_rows = batch.logit_rows.tolist()
        assert all(row < after for row, after in pairwise(logit_rows))
        tables = [(batch.block_tables, self.num_blocks)]
        if batch.local_tables is not None:
            tables.append((batch.local_tables, self.num_local_blocks))
        for table, num_blocks in tables:
            written: list[int] = []
            for row, (first, end) in zip(table.tolist(), pairwise(starts), strict=True):
                mine = positions[first:end]
                assert mine == list(range(mine[0], mine[0] + len(mine)))
                blocks = range(mine[0] // BLOCK_SIZE, mine[-1] // BLOCK_SIZE + 1)
                assert all(0 <= row[block] < num_blocks for block in blocks)
                written += [row[block] for block in blocks]
            assert len(written) == len(set(written)), "two sequences write the same block"


def _write(pages: NDArray[np.uint64], table: list[int], start: int, values: list[int]) -> None:
    for position, value in enumerate(values, start):
        pages[table[position // BLOCK_SIZE], position % BLOCK_SIZE] = value
