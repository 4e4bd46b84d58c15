"""Attention of the reference executor over paged keys and values: MHA, GQA and MQA, with and without a window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vivace.graph.ops import Attention
from vivace.numerics.kv_formats import KvFormat, is_exact
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE, ForwardBatch

Rows = NDArray[np.float32]
_ROWS_AT_ONCE = 128  # query rows whose scores are held together


@dataclass(frozen=True, slots=True, eq=False)
class KeyValuePages:
    """`keys` and `values`: for every layer float32 (its blocks, BLOCK_SIZE, num_kv_heads, head_dim).

    They hold what the layer's format reads back of them; without formats, what was computed. `local` says which layers
    have blocks of their own (see `ForwardBatch.local_tables`). Layers of mixed formats have copies, which are layers
    of their own after those of the model: `copies` says where.
    """

    keys: tuple[Rows, ...]
    values: tuple[Rows, ...]
    local: tuple[bool, ...]
    formats: tuple[KvFormat, ...] | None = None
    copies: dict[int, int] = field(default_factory=dict)

    @classmethod
    def allocate(
        cls,
        spec: ModelSpec,
        num_blocks: int,
        formats: tuple[KvFormat, ...] | None = None,
        num_local_blocks: int | None = None,
    ) -> Self:
        """A pool of `num_blocks` blocks for every layer, in the formats given (one a layer).

        With `num_local_blocks` local layers have so many of their own.
        """
        attention = spec.attention
        local = (False,) * spec.num_layers if num_local_blocks is None else attention.local_layers
        mixed = [layer for layer, row in enumerate(formats or ()) if row.mixed]
        local += (num_local_blocks is not None,) * len(mixed)
        copies = {layer: spec.num_layers + number for number, layer in enumerate(mixed)}
        counts = [num_local_blocks or 0 if is_local else num_blocks for is_local in local]
        shapes = [(count, BLOCK_SIZE, attention.num_kv_heads, attention.head_dim) for count in counts]
        keys, values = (tuple(np.zeros(shape, np.float32) for shape in shapes) for _ in range(2))
        return cls(keys, values, local, formats, copies)

    def write(self, layer: int, blocks: NDArray[np.int32], slots: NDArray[np.int32], k: Rows, v: Rows) -> None:
        """Store keys and values, (rows, num_kv_heads, head_dim), at (block, slot) of each row."""
        if self.formats is not None:
            k, v = self.formats[layer].keep_keys(k), self.formats[layer].keep_values(v)
        self.keys[layer][blocks, slots] = k
        self.values[layer][blocks, slots] = v

    def write_copies(self, layer: int, blocks: NDArray[np.int32], slots: NDArray[np.int32], k: Rows, v: Rows) -> None:
        """As `write`, of the float16 copies of a layer."""
        assert self.formats is not None
        keep, copy = self.formats[layer].keep_exact, self.copies[layer]
        self.keys[copy][blocks, slots], self.values[copy][blocks, slots] = keep(k), keep(v)

    def bytes_per_block(self, *, local: bool) -> int:
        """Keys and values of one block over all local layers, or over all others."""
        return sum(array[0].nbytes for array in self._of_kind(local=local))

    def read_block(self, block: int, *, local: bool) -> NDArray[np.uint8]:
        """Keys, then values of one block over all layers of a kind, as bytes."""
        return np.concatenate([array[block].ravel() for array in self._of_kind(local=local)]).view(np.uint8)

    def write_block(self, block: int, content: NDArray[np.uint8], *, local: bool) -> None:
        """What `read_block` returned."""
        arrays = self._of_kind(local=local)
        for array, mine in zip(arrays, np.split(content.view(np.float32), len(arrays)), strict=True):
            array[block] = mine.reshape(array.shape[1:])

    def _of_kind(self, *, local: bool) -> list[Rows]:
        return [
            arrays[layer]
            for arrays in (self.keys, self.values)
            for layer, is_local in enumerate(self.local)
            if is_local == local
        ]

    def copy(self, pairs: Iterable[tuple[int, int]], *, local: bool) -> None:
        """Copy blocks (source, target) of all local layers, or of all others, in the order given."""
        for layer, is_local in enumerate(self.local):
            for source, target in pairs if is_local == local else ():
                self.keys[layer][target] = self.keys[layer][source]
                self.values[layer][target] = self.values[layer][source]


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One sequence in one layer: its rows, where they go in its table, the blocks it has and what its rows see."""

    sequence: int
    rows: slice
    slots: NDArray[np.int32]
    table: NDArray[np.int32]
    seen: NDArray[np.bool_]

    @property
    def length(self) -> int:
        return int(self.slots[-1]) + 1

    @property
    def known(self) -> NDArray[np.int32]:
        return self.table[: -(-self.length // BLOCK_SIZE)]


def _places(op: Attention, batch: ForwardBatch, pages: KeyValuePages) -> Iterator[_Place]:
    """The sequences of a batch that have rows."""
    local = pages.local[op.layer]
    tables = batch.local_tables if local and batch.local_tables is not None else batch.block_tables
    all_slots = batch.positions if local or batch.slots is None else batch.slots
    for sequence, table in enumerate(tables):
        rows = slice(int(batch.sequence_starts[sequence]), int(batch.sequence_starts[sequence + 1]))
        slots = all_slots[rows]
        if len(slots) == 0:
            continue
        seen = visible(slots, int(slots[-1]) + 1, op.window)
        yield _Place(sequence, rows, slots, table, seen if local else seen & kept(batch, rows, seen.shape[1], slots))


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
    heads = (-1, op.num_kv_heads, op.head_dim)
    for place in _places(op, batch, pages):
        blocks, slots = place.table[place.slots // BLOCK_SIZE], place.slots % BLOCK_SIZE
        pages.write(op.layer, blocks, slots, k[place.rows].reshape(heads), v[place.rows].reshape(heads))
        own_keys, own_values = (_unpage(half[place.known], place.length) for half in (keys, values))
        if op.layer in pages.copies:
            mixed = _attend_mixed(op, q, k, v, place=place, batch=batch, pages=pages)
        else:
            mixed = _weights(op, q[place.rows], own_keys, place.seen) @ own_values[:, None]
        out[place.rows] = mixed.transpose(2, 0, 1, 3).reshape(len(place.slots), -1)
    return out


def _attend_mixed(
    op: Attention, q: Rows, k: Rows, v: Rows, *, place: _Place, batch: ForwardBatch, pages: KeyValuePages
) -> Rows:
    """Attention of one sequence in a layer of a mixed format, (kv heads, heads of each, rows, head_dim)."""
    copy = pages.copies[op.layer]
    apart = pages.local[copy] and batch.local_tables is not None
    positions = batch.positions[place.rows]
    table = batch.local_tables[place.sequence] if apart and batch.local_tables is not None else place.table
    slots = positions if apart else place.slots
    heads = (-1, op.num_kv_heads, op.head_dim)
    target = table[slots // BLOCK_SIZE], slots % BLOCK_SIZE
    pages.write_copies(op.layer, *target, k[place.rows].reshape(heads), v[place.rows].reshape(heads))
    # Where blocks were taken out of the table, slots fall short of positions, and the latest are read as codes.
    exact = np.array(
        [
            [is_exact(slot, key) if slot == position else is_exact(1 << 30, key) for key in range(place.length)]
            for slot, position in zip(place.slots.tolist(), positions.tolist(), strict=True)
        ]
    )
    stored = [_unpage(half[op.layer][place.known], place.length) for half in (pages.keys, pages.values)]
    known = table[: -(-place.length // BLOCK_SIZE)]
    copied = [_unpage(half[copy][known], place.length) for half in (pages.keys, pages.values)]
    scores = np.where(exact, _scores(op, q[place.rows], copied[0]), _scores(op, q[place.rows], stored[0]))
    weights = _softmax(scores, place.seen)
    nothing = np.float32(0)
    mixed: Rows = np.where(exact, weights, nothing) @ copied[1][:, None]
    mixed += np.where(exact, nothing, weights) @ stored[1][:, None]
    return mixed


def observe(op: Attention, q: Rows, k: Rows, *, batch: ForwardBatch, pages: KeyValuePages) -> Rows:
    """How much attention of this layer the observed rows pay to each block of their tables, before `attend` ran.

    Returns:
        float32 (observed rows, max_blocks): softmax mass summed over heads.
    """
    assert batch.observe_rows is not None
    masses = np.zeros((len(batch.observe_rows), batch.block_tables.shape[1]), np.float32)
    heads = (-1, op.num_kv_heads, op.head_dim)
    for place in _places(op, batch, pages):
        wanted = np.flatnonzero((batch.observe_rows >= place.rows.start) & (batch.observe_rows < place.rows.stop))
        own = k[place.rows].reshape(heads)
        keys = _unpage(pages.keys[op.layer][place.known], place.length).copy()
        keys[:, place.slots] = (own if pages.formats is None else pages.formats[op.layer].keep_keys(own)).swapaxes(0, 1)
        weights = _weights(op, q[place.rows], keys, place.seen).sum(axis=(0, 1))
        padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK_SIZE)))
        by_block = padded.reshape(len(weights), -1, BLOCK_SIZE).sum(axis=2)
        masses[wanted, : by_block.shape[1]] = by_block[batch.observe_rows[wanted] - place.rows.start]
    return masses


def _unpage(blocks: Rows, length: int) -> Rows:
    """(num_blocks, BLOCK_SIZE, heads, head_dim) to (heads, length, head_dim)."""
    return blocks.reshape(-1, *blocks.shape[2:])[:length].transpose(1, 0, 2)


def _weights(op: Attention, q: Rows, keys: Rows, seen: NDArray[np.bool_]) -> Rows:
    """Softmax weights of one sequence (Vaswani et al., 2017); query head h reads kv head h // (heads / kv heads).

    Returns:
        float32 (kv heads, heads of each, rows, length).
    """
    return _softmax(_scores(op, q, keys), seen)


def _scores(op: Attention, q: Rows, keys: Rows) -> Rows:
    num_rows, group = len(q), op.num_heads // op.num_kv_heads
    queries = q.reshape(num_rows, op.num_kv_heads, group, op.head_dim).transpose(1, 2, 0, 3)
    scores: Rows = (queries @ keys[:, None].swapaxes(-1, -2)) * np.float32(op.scale)
    return scores


def _softmax(scores: Rows, seen: NDArray[np.bool_]) -> Rows:
    scores[..., ~seen] = -np.inf
    weights: Rows = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def visible(positions: NDArray[np.int32], length: int, window: int | None) -> NDArray[np.bool_]:
    """Which of the positions 0 .. length - 1 each row may attend to: none after its own, none out of its window.

    Returns:
        bool (len(positions), length); True at the row's own position and the window - 1 before it.
    """
    distance = positions[:, None] - np.arange(length)
    seen: NDArray[np.bool_] = distance >= 0
    return seen if window is None else seen & (distance < window)


def kept(batch: ForwardBatch, rows: slice, length: int, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of the slots 0 .. length - 1 the batch lets each of its `rows` see: its sinks and its window.

    Returns:
        bool (rows, length), or (1, length) when everything is seen.
    """
    if batch.window_starts is None or batch.sink_ends is None:
        return np.ones((1, length), np.bool_)
    keys, starts = np.arange(length), np.minimum(batch.window_starts[rows], slots)
    seen: NDArray[np.bool_] = (keys >= starts[:, None]) | (keys < batch.sink_ends[rows][:, None])
    return seen
