"""A fast, deterministic executor whose logits are a hash of the history it reads back through the KV pages.

The value it writes for a position depends on the token, the position and everything read before it, as keys and values
of a deep model do. So a wrong block, a wrong position, a block shared by two writers or a stale page changes the tokens
that follow. Faults can be planted to see how the engine bears them.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE, ForwardBatch

MASK = (1 << 64) - 1


def mix(value: int) -> int:
    value = ((value ^ (value >> 31)) * 0x9FB21C651E98DF25) & MASK
    return value ^ (value >> 28)


class FakeExecutor:
    """See the module. `before_forward` may raise; `poison` turns a row's logits into NaN when the row's token is it."""

    def __init__(
        self,
        num_blocks: int = 64,
        max_rows: int = 512,
        vocab_size: int = 32,
        poison: int | None = None,
        before_forward: Callable[[ForwardBatch], None] = lambda batch: None,
    ) -> None:
        self.vocab_size, self.num_blocks, self.max_rows = vocab_size, num_blocks, max_rows
        self.poison = poison
        self.before_forward = before_forward
        self.batch_sizes: list[int] = []
        self.is_closed = False
        self._pages = np.zeros(num_blocks * BLOCK_SIZE, dtype=np.uint64)
        self._columns = np.arange(1, vocab_size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self._logits = np.zeros((max_rows, vocab_size), dtype=np.float32)

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        self.before_forward(batch)
        self._check(batch)
        self.batch_sizes.append(len(batch.token_ids))
        states: list[int] = []
        for index in range(len(batch.sequence_starts) - 1):
            rows = slice(int(batch.sequence_starts[index]), int(batch.sequence_starts[index + 1]))
            states += self._extend(batch.token_ids[rows].tolist(), int(batch.positions[rows.start]), batch, index)
        logits = self._logits[: len(batch.logit_rows)]
        for out, row in zip(logits, batch.logit_rows.tolist(), strict=True):
            out[:] = self._hashed_logits(states[row])
            if self.poison is not None and batch.token_ids[row] == self.poison:
                out[:] = np.nan
        return logits

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        pages = self._pages.reshape(-1, BLOCK_SIZE)
        for source, target in pairs:
            pages[target] = pages[source]

    @property
    def bytes_per_block(self) -> int:
        return BLOCK_SIZE * 8

    def read_block(self, block: int) -> NDArray[np.uint8]:
        return self._pages.reshape(-1, BLOCK_SIZE)[block].copy().view(np.uint8)

    def write_block(self, block: int, content: NDArray[np.uint8]) -> None:
        self._pages.reshape(-1, BLOCK_SIZE)[block] = content.view(np.uint64)

    def close(self) -> None:
        self.is_closed = True

    def _extend(self, tokens: list[int], start: int, batch: ForwardBatch, index: int) -> list[int]:
        """Write the pages of one sequence's rows; returns the state after each row."""
        table = batch.block_tables[index]
        slots = self._slots(table, start + len(tokens))
        history = self._pages[slots[:start]]
        weights = np.arange(start, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        state = int((history * weights).sum()) & MASK
        states = []
        for position, token in enumerate(tokens, start):
            value = mix(state ^ mix(token * 0x10001 + position + 1))
            self._pages[slots[position]] = value
            state = (state + value * (2 * position + 1)) & MASK
            states.append(state)
        return states

    def _slots(self, table: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        positions = np.arange(count)
        return table[positions // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + positions % BLOCK_SIZE

    def _hashed_logits(self, state: int) -> NDArray[np.float32]:
        mixed = (self._columns ^ np.uint64(state)) * np.uint64(0xD6E8FEB86659FD93)
        return ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 22)) - np.float32(2)

    def _check(self, batch: ForwardBatch) -> None:
        """What every executor may rely on."""
        starts = batch.sequence_starts
        assert {array.dtype for array in (batch.token_ids, batch.positions, starts, batch.block_tables)} == {
            np.dtype(np.int32)
        }
        assert len(batch.token_ids) == len(batch.positions) == starts[-1] <= self.max_rows
        assert batch.block_tables.min() >= 0 and batch.block_tables.max() < self.num_blocks
        assert (np.diff(batch.logit_rows) > 0).all()
        written = set()
        for index in range(len(starts) - 1):
            positions = batch.positions[starts[index] : starts[index + 1]].tolist()
            assert positions == list(range(positions[0], positions[0] + len(positions)))
            slots = self._slots(batch.block_tables[index], positions[-1] + 1)[positions[0] :].tolist()
            assert written.isdisjoint(slots), "two sequences write the same slot"
            written.update(slots)
