"""The oracle: the op list in plain numpy, float32, slow and clear. Every faster executor is compared with this one.

Owns a paged KV pool and float32 copies of the weights, made when a weight is first used; memory is no concern here. One
function an op kind, in the table at the end. Unlike the native executor it is not batch-invariant to the bit: a matrix
product of the BLAS may round a row differently in a larger batch.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vivace.execute.reference_attention import KeyValuePages, attend, observe
from vivace.graph.graph import Graph
from vivace.graph.ops import (
    Add,
    AddRmsNorm,
    Attention,
    Cast,
    Embed,
    FusedLinear,
    GatedActivation,
    Linear,
    Op,
    RmsNorm,
    Rope,
    SelectRows,
)
from vivace.graph.passes import cut_after_layer, validate
from vivace.graph.weights import check_weights
from vivace.numerics import nested
from vivace.numerics.kv_formats import layer_formats
from vivace.numerics.rope import inverse_frequencies
from vivace.numerics.roundings import round_to
from vivace.types.errors import EngineError
from vivace.types.model import Activation, RopeSpec
from vivace.types.precision import full_level
from vivace.types.step import ForwardBatch
from vivace.types.weights import TensorFormat, WeightSource

Rows = NDArray[np.float32]
CosSin = tuple[Rows, Rows]


class ReferenceExecutor:
    """An Executor (`types.step`) in numpy.

    Args:
        graph: the op list, fused or not.
        weights: where weights are read from; closed by `close`.
        num_blocks: KV blocks in the pool, of BLOCK_SIZE positions each.
        num_local_blocks: blocks of local layers, which then are numbered apart; None: a block holds all layers.
        max_rows: most rows of one `forward`.
        kv_format: what keys and values are rounded to when they are stored, one row of KV_FORMATS or one a layer;
            None: nothing, they stay float32.

    Raises:
        ConfigError: the graph is wrong, or there is no such KV format.
        ModelFileError: a weight is missing or has the wrong shape.
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightSource,
        *,
        num_blocks: int,
        num_local_blocks: int | None = None,
        max_rows: int = 512,
        kv_format: str | Sequence[str] | None = None,
    ) -> None:
        validate(graph)
        check_weights(graph, weights)
        spec = graph.spec
        attention = spec.attention
        formats = (
            None
            if kv_format is None
            else layer_formats(kv_format, spec.num_layers, attention.head_dim, attention.local_layers)
        )
        self._graph = graph
        self._weights = weights
        self._arrays: dict[str, Rows] = {}
        self._pages = KeyValuePages.allocate(spec, num_blocks, formats, num_local_blocks)
        self._observed: Rows = np.zeros((0, 0), np.float32)
        self._num_blocks = num_blocks
        self._max_rows = max_rows
        self._is_exit = False

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._graph.spec.vocab_size

    @property
    def num_blocks(self) -> int:
        """KV blocks in the pool."""
        return self._num_blocks

    @property
    def max_rows(self) -> int:
        """Most rows one `forward` takes."""
        return self._max_rows

    def forward(self, batch: ForwardBatch) -> Rows:
        """Run the op list over the batch; returns logits, float32 (L, vocab_size), a fresh array.

        Raises:
            EngineError: the batch has more rows than `max_rows`.
        """
        if len(batch.token_ids) > self._max_rows:
            raise EngineError(f"A step of {len(batch.token_ids)} rows is over the executor's {self._max_rows}.")
        step = Step(batch, self._pages, self.weight)
        if batch.row_levels is not None:
            step.slice_of, step.num_layers = self._slice, self._graph.spec.num_layers
        run_ops(self._graph.ops, step, _watch_attention if batch.observe_rows is not None else None)
        self._observed = step.observed if step.observed is not None else self._observed[:0]
        return step.buffers[self._graph.output]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy KV blocks (source, target) in every layer that is not local, in the order given."""
        self._pages.copy(pairs, local=False)

    def copy_local_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (source, target) of the local layers, in the order given."""
        self._pages.copy(pairs, local=True)

    def observed(self) -> Rows:
        """What the observed rows of the last `forward` attended to, see `types.step`."""
        return self._observed

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one KV block over all layers that are not local, as it is kept here: in float32."""
        return self._pages.bytes_per_block(local=False)

    @property
    def bytes_per_local_block(self) -> int:
        """Bytes of one block over the local layers; 0 when there are none."""
        return self._pages.bytes_per_block(local=True)

    def read_block(self, block: int) -> NDArray[np.uint8]:
        """A copy of one KV block of every layer that is not local, uint8 (bytes_per_block,)."""
        return self._pages.read_block(block, local=False)

    def write_block(self, block: int, content: NDArray[np.uint8]) -> None:
        """Fill one KV block of every layer that is not local with what `read_block` returned."""
        self._pages.write_block(block, content, local=False)

    def read_local_block(self, block: int) -> NDArray[np.uint8]:
        """A copy of one block of the local layers, uint8 (bytes_per_local_block,)."""
        return self._pages.read_block(block, local=True)

    def write_local_block(self, block: int, content: NDArray[np.uint8]) -> None:
        """Fill one block of the local layers with what `read_local_block` returned."""
        self._pages.write_block(block, content, local=True)

    def early_exit(self, num_layers: int, max_rows: int) -> "ReferenceExecutor":
        """The first layers of this model with its final norm and head, over the same weights and KV pool.

        Raises:
            ConfigError: num_layers is not between 1 and the layers of the model.
        """
        early = copy.copy(self)
        early._graph, early._max_rows, early._is_exit = cut_after_layer(self._graph, num_layers), max_rows, True
        return early

    def close(self) -> None:
        """Free the pool and the weights; an early exit owns neither."""
        if self._is_exit:
            return
        self._arrays.clear()
        self._pages = KeyValuePages.allocate(self._graph.spec, 0)
        self._weights.close()

    def weight(self, name: str) -> Rows:
        """A weight in float32; dequantised on first use and kept."""
        if name not in self._arrays:
            self._arrays[name] = self._weights.dequantize(name)
        return self._arrays[name]

    def _slice(self, name: str) -> Rows | None:
        """The high bits of a nested weight; None of any other."""
        info = self._weights.info(name)
        if info.format is not TensorFormat.N8_0:
            return None
        key = f"{name}:high"
        if key not in self._arrays:
            blocks = self._weights.raw(name).reshape(-1, nested.BLOCK_BYTES)
            self._arrays[key] = nested.decode_high(blocks).reshape(info.shape)
        return self._arrays[key]


@dataclass(slots=True)
class Step:
    """What the ops of one `forward` share: the batch, the buffers written so far, the pool and the weights."""

    batch: ForwardBatch
    pages: KeyValuePages
    weight: Callable[[str], Rows]
    buffers: dict[str, Rows] = field(default_factory=dict)
    angles: dict[RopeSpec, CosSin] = field(default_factory=dict)
    observed: Rows | None = None
    slice_of: Callable[[str], Rows | None] | None = None  # high bits of nested weights; None: rows have no levels
    num_layers: int = 0

    def cos_sin(self, rope: RopeSpec) -> CosSin:
        """Cosine and sine of every row's angles, (R, dim / 2), computed once a step for each rope."""
        if rope not in self.angles:
            frequencies, factor = inverse_frequencies(rope)
            angles = self.batch.positions[:, None] * frequencies
            self.angles[rope] = (
                (np.cos(angles) * factor).astype(np.float32),
                (np.sin(angles) * factor).astype(np.float32),
            )
        return self.angles[rope]


def rms_norm(x: Rows, weight: Rows, eps: float, num_groups: int = 1) -> Rows:
    """x / sqrt(mean(x^2) + eps) * weight over `num_groups` equal pieces of each row (Zhang and Sennrich, 2019)."""
    pieces = x.reshape(len(x), num_groups, x.shape[1] // num_groups)
    mean_square: Rows = np.mean(pieces * pieces, axis=-1, keepdims=True, dtype=np.float32)
    root: Rows = np.sqrt(mean_square + np.float32(eps))
    return (pieces / root * weight).reshape(x.shape)


def rotate(x: Rows, cos_sin: CosSin, num_heads: int, rope: RopeSpec) -> Rows:
    """Rotate the first `rope.dim` lanes of each head by the row's angles; the lanes after them stay as they are."""
    cos, sin = (table[:, None, :] for table in cos_sin)
    rotated = x.reshape(len(x), num_heads, x.shape[1] // num_heads).copy()
    first, second = _pairs(rotated, rope)
    first_before, second_before = first.copy(), second.copy()
    first[...] = first_before * cos - second_before * sin
    second[...] = second_before * cos + first_before * sin
    return rotated.reshape(x.shape)


def _pairs(heads: Rows, rope: RopeSpec) -> tuple[Rows, Rows]:
    """Views of the first and second lanes of all pairs."""
    if rope.interleaved:
        return heads[..., 0 : rope.dim : 2], heads[..., 1 : rope.dim : 2]
    return heads[..., : rope.dim // 2], heads[..., rope.dim // 2 : rope.dim]


def silu(x: Rows) -> Rows:
    """x * sigmoid(x), written with tanh so that no exponential can overflow."""
    half: Rows = np.float32(0.5) * x
    tanh: Rows = np.tanh(half)
    return half * (np.float32(1.0) + tanh)


def gelu_tanh(x: Rows) -> Rows:
    """The tanh form of GELU (Hendrycks and Gimpel, 2016)."""
    inner: Rows = np.float32(np.sqrt(2.0 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    tanh: Rows = np.tanh(inner)
    return np.float32(0.5) * x * (np.float32(1.0) + tanh)


_ACTIVATIONS: dict[Activation, Callable[[Rows], Rows]] = {"silu": silu, "gelu_tanh": gelu_tanh}


def run_ops(ops: Iterable[Op], step: Step, observe: Callable[[Op, Step], None] | None = None) -> None:
    """Run ops in order, leaving what they write in `step.buffers`.

    Args:
        ops: part of an op list; what it reads is in the step's buffers, or written by an earlier op of the part.
        step: the batch, the pool, the weights and the buffers.
        observe: sees each op just before it runs, with the buffers that it reads.
    """
    for op in ops:
        if observe is not None:
            observe(op, step)
        _RUN[type(op)](op, step)


def _watch_attention(op: Op, step: Step) -> None:
    if not isinstance(op, Attention) or op.window is not None:
        return
    q, k = step.buffers[op.q], step.buffers[op.k]
    masses = observe(op, q, k, batch=step.batch, pages=step.pages)
    step.observed = masses if step.observed is None else step.observed + masses


def _run_embed(op: Embed, step: Step) -> None:
    step.buffers[op.out] = step.weight(op.weight)[step.batch.token_ids] * np.float32(op.scale)


def _run_rms_norm(op: RmsNorm, step: Step) -> None:
    step.buffers[op.out] = rms_norm(step.buffers[op.x], step.weight(op.weight), op.eps, op.num_groups)


def _run_linear(op: Linear, step: Step) -> None:
    _linear(op.out, op.x, op.weight, op.bias, step)


def _run_fused_linear(op: FusedLinear, step: Step) -> None:
    for out, weight, bias in zip(op.outs, op.weights, op.biases, strict=True):
        _linear(out, op.x, weight, bias, step)


def _linear(out: str, x: str, weight: str, bias: str | None, step: Step) -> None:
    product = step.buffers[x] @ step.weight(weight).T
    slices = step.slice_of(weight) if step.slice_of is not None else None
    if slices is not None:
        levels = step.batch.row_levels
        assert levels is not None
        few = levels < full_level(weight, step.num_layers)
        few = few[step.batch.logit_rows] if len(product) != len(few) else few
        product[few] = step.buffers[x][few] @ slices.T
    step.buffers[out] = product if bias is None else product + step.weight(bias)


def _run_rope(op: Rope, step: Step) -> None:
    step.buffers[op.out] = rotate(step.buffers[op.x], step.cos_sin(op.rope), op.num_heads, op.rope)


def _run_attention(op: Attention, step: Step) -> None:
    q, k, v = (step.buffers[name] for name in (op.q, op.k, op.v))
    step.buffers[op.out] = attend(op, q, k, v, batch=step.batch, pages=step.pages)


def _run_gated_activation(op: GatedActivation, step: Step) -> None:
    step.buffers[op.out] = _ACTIVATIONS[op.activation](step.buffers[op.gate]) * step.buffers[op.up]


def _run_add(op: Add, step: Step) -> None:
    step.buffers[op.out] = step.buffers[op.a] + step.buffers[op.b]


def _run_select_rows(op: SelectRows, step: Step) -> None:
    step.buffers[op.out] = step.buffers[op.x][step.batch.logit_rows]


def _run_add_rms_norm(op: AddRmsNorm, step: Step) -> None:
    total = step.buffers[op.a] + step.buffers[op.b]
    step.buffers[op.total] = total
    step.buffers[op.out] = rms_norm(total, step.weight(op.weight), op.eps)


def _run_cast(op: Cast, step: Step) -> None:
    step.buffers[op.out] = round_to(op.precision, step.buffers[op.x], op.grid)


_RUN: dict[type[Op], Callable[..., None]] = {
    Embed: _run_embed,
    RmsNorm: _run_rms_norm,
    Linear: _run_linear,
    FusedLinear: _run_fused_linear,
    Rope: _run_rope,
    Attention: _run_attention,
    GatedActivation: _run_gated_activation,
    Add: _run_add,
    SelectRows: _run_select_rows,
    AddRmsNorm: _run_add_rms_norm,
    Cast: _run_cast,
}
