"""Attention of the reference executor over paged keys and values: MHA, GQA and MQA, with and without a window."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vivace.graph.ops import Attention
from vivace.numerics.kv_formats import KvFormat
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE, ForwardBatch

Rows = NDArray[np.float32]
_ROWS_AT_ONCE = 128  # query rows whose scores are held together


@dataclass(frozen=True, slots=True, eq=False)
class KeyValuePages:
    """`keys` and `values`: float32 (num_layers, num_blocks, BLOCK_SIZE, num_kv_heads, head_dim).

    They hold what the layer's format reads back of them; without formats, what was computed.
    """

    keys: Rows
    values: Rows
    formats: tuple[KvFormat, ...] | None = None

    @classmethod
    def allocate(cls, spec: ModelSpec, num_blocks: int, formats: tuple[KvFormat, ...] | None = None) -> Self:
        """A pool of `num_blocks` blocks for every layer, in the formats given (one a layer)."""
        attention = spec.attention
        shape = (spec.num_layers, num_blocks, BLOCK_SIZE, attention.num_kv_heads, attention.head_dim)
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32), formats)

    def write(self, layer: int, blocks: NDArray[np.int32], slots: NDArray[np.int32], k: Rows, v: Rows) -> None:
        """Store keys and values, (rows, num_kv_heads, head_dim), at (block, slot) of each row."""
        if self.formats is not None:
            k, v = self.formats[layer].keep_keys(k), self.formats[layer].keep_values(v)
        self.keys[layer][blocks, slots] = k
        self.values[layer][blocks, slots] = v

    @property
    def bytes_per_block(self) -> int:
        """Keys and values of one block over all layers."""
        return 2 * self.keys[:, 0].nbytes

    def read_block(self, block: int) -> NDArray[np.uint8]:
        """Keys, then values of one block over all layers, as bytes."""
        return np.concatenate((self.keys[:, block].ravel(), self.values[:, block].ravel())).view(np.uint8)

    def write_block(self, block: int, content: NDArray[np.uint8]) -> None:
        """What `read_block` returned."""
        keys, values = content.view(np.float32).reshape(2, *self.keys[:, block].shape)
        self.keys[:, block], self.values[:, block] = keys, values


def attend(op: Attention, q: Rows, k: Rows, v: Rows, *, batch: ForwardBatch, pages: KeyValuePages) -> Rows:
    """Write k and v of all rows into their pages, then let each row attend to its own sequence.

    Args:
        op: heads, scale, window and layer.
        q: queries, (R, num_heads * head_dim).
        k: keys, (R, num_kv_heads * head_dim).
        v: values, like k.
        batch: positions, sequences and block tables of the R rows.
        pages: the pool; written at (layer, block, slot) of every row.

    Returns:
        float32 (R, num_heads * head_dim).
    """
    keys, values = pages.keys[op.layer], pages.values[op.layer]
    out = np.empty_like(q)
    for sequence, table in enumerate(batch.block_tables):
        rows = slice(int(batch.sequence_starts[sequence]), int(batch.sequence_starts[sequence + 1]))
        positions = batch.positions[rows]
        if len(positions) == 0:
            continue
        blocks, slots = table[positions // BLOCK_SIZE], positions % BLOCK_SIZE
        heads = (-1, op.num_kv_heads, op.head_dim)
        pages.write(op.layer, blocks, slots, k[rows].reshape(heads), v[rows].reshape(heads))
        for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):  # early rows need not look at late keys
            part = slice(start, min(start + _ROWS_AT_ONCE, rows.stop))
            length = int(batch.positions[part.stop - 1]) + 1
            known = table[: -(-length // BLOCK_SIZE)]
            seen = visible(batch.positions[part], length, op.window) & kept(batch, part, length)
            out[part] = _attend_one(op, q[part], _unpage(keys[known], length), _unpage(values[known], length), seen)
    return out


def _unpage(blocks: Rows, length: int) -> Rows:
    """(num_blocks, BLOCK_SIZE, heads, head_dim) to (heads, length, head_dim)."""
    return blocks.reshape(-1, *blocks.shape[2:])[:length].transpose(1, 0, 2)


def _attend_one(op: Attention, q: Rows, keys: Rows, values: Rows, seen: NDArray[np.bool_]) -> Rows:
    """Softmax attention of one sequence (Vaswani et al., 2017); query head h reads kv head h // (heads / kv heads)."""
    num_rows, group = len(q), op.num_heads // op.num_kv_heads
    queries = (
        q.reshape(num_rows, op.num_kv_heads, group, op.head_dim)
        .transpose(1, 2, 0, 3)
        .reshape(op.num_kv_heads, group * num_rows, op.head_dim)  # one product a kv head
    )
    scores = (queries @ keys.swapaxes(-1, -2)) * np.float32(op.scale)
    by_row = scores.reshape(op.num_kv_heads, group, num_rows, -1)
    by_row += np.where(seen, np.float32(0), np.float32(-np.inf))
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Rows = (weights @ values).reshape(op.num_kv_heads, group, num_rows, op.head_dim)
    return mixed.transpose(2, 0, 1, 3).reshape(num_rows, -1)


def visible(positions: NDArray[np.int32], length: int, window: int | None) -> NDArray[np.bool_]:
    """Which of the positions 0 .. length - 1 each row may attend to: none after its own, none out of its window.

    Returns:
        bool (len(positions), length); True at the row's own position and the window - 1 before it.
    """
    distance = positions[:, None] - np.arange(length)
    seen: NDArray[np.bool_] = distance >= 0
    return seen if window is None else seen & (distance < window)


def kept(batch: ForwardBatch, rows: slice, length: int) -> NDArray[np.bool_]:
    """Which of the positions 0 .. length - 1 the batch lets each of its `rows` see: its sinks and its window.

    Returns:
        bool (rows, length), or (1, length) when everything is seen.
    """
    if batch.window_starts is None or batch.sink_ends is None:
        return np.ones((1, length), np.bool_)
    keys, starts = np.arange(length), np.minimum(batch.window_starts[rows], batch.positions[rows])
    seen: NDArray[np.bool_] = (keys >= starts[:, None]) | (keys < batch.sink_ends[rows][:, None])
    return seen
