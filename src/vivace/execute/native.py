"""The native executor: the op list lowered, weights packed, every step one call into the C++ core.

Owns the packed weights, the KV pool and the program. Weights stay quantised: a tensor is repacked straight from the
mapped file into the layout its dot products read, and the pages of the file it came from are let go.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace import _native
from vivace.execute.lowering import Argument, CoreGraph, CoreOp, lower
from vivace.graph.graph import Graph
from vivace.graph.ops import Embed, FusedLinear, Linear
from vivace.graph.passes import fuse_add_norm, fuse_linears, validate
from vivace.graph.passes.arena import place_buffers
from vivace.graph.weights import check_weights
from vivace.numerics.kv_formats import layer_formats
from vivace.numerics.rope import inverse_frequencies
from vivace.types.errors import ConfigError, EngineError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.step import ForwardBatch
from vivace.types.weights import TensorFormat, WeightSource

_FLOAT_FORMATS = frozenset({TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16})
_ABSENT = -1  # the core's number for a buffer or vector that is not there


class NativeExecutor:
    """An Executor (`types.step`) on the C++ core.

    Args:
        graph: the op list; fused here.
        weights: where weights are read from; may be closed afterwards, `close` closes it as well.
        num_blocks: KV blocks in the pool, of BLOCK_SIZE positions each.
        max_rows: most rows of one `forward`.
        num_threads: threads that share a step; None: one for each core this process may use.
        isa: kernel table to force ("avx512", "avx2", "neon", "scalar"); None: VIVACE_ISA, else the best one.
        activation_bits: 12 or 8: precision that the inputs of quantised linears are rounded to, in groups of 32.
        kv_format: how keys and values are stored, one row of KV_FORMATS (`numerics.kv_formats`) or one a layer.

    Raises:
        ConfigError: a setting is out of range, or the machine has no such kernel table.
        ModelFileError: a weight is missing or has the wrong shape.
        UnsupportedModelError: a width that the kernels cannot take.
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightSource,
        *,
        num_blocks: int,
        max_rows: int = 512,
        num_threads: int | None = None,
        isa: str | None = None,
        activation_bits: int = 12,
        kv_format: str | Sequence[str] = DEFAULT_KV_FORMAT,
    ) -> None:
        if activation_bits not in (8, 12):
            raise ConfigError(f"activation_bits must be 8 or 12, not {activation_bits}.")
        validate(graph)
        check_weights(graph, weights)
        graph = fuse_add_norm(fuse_linears(graph))
        spec = graph.spec
        attention = spec.attention
        formats = layer_formats(kv_format, spec.num_layers, attention.head_dim)
        threads = num_threads or len(os.sched_getaffinity(0))
        core = lower(graph, lambda name: weights.info(name).format not in _FLOAT_FORMATS, activation_bits)
        rows = dict.fromkeys(core.buffers, max_rows)
        sizes = {name: buffer.row_bytes * rows[name] for name, buffer in core.buffers.items()}
        offsets, arena_bytes = place_buffers(core.lifetimes(), sizes)
        self._weights = weights
        self._max_rows = max_rows
        self._vocab_size = spec.vocab_size
        try:
            self._kv = _native.KvPool(
                [row.name for row in formats], num_blocks, attention.num_kv_heads, attention.head_dim
            )
            self._program = _native.Program(
                isa if isa is not None else os.environ.get("VIVACE_ISA", ""),
                threads,
                max_rows,
                max_rows,
                max(arena_bytes, 64),
                self._kv,
            )
        except ValueError as error:
            raise ConfigError(f"The native executor cannot start: {error}.") from None
        except MemoryError:
            raise ConfigError(
                f"There is no memory for {num_blocks} KV blocks.", "Ask for a shorter context or fewer blocks."
            ) from None
        self._program.set_attention_shape(
            attention.num_heads, attention.num_kv_heads, attention.head_dim, spec.vocab_size
        )
        _Emitter(self._program, core, offsets, _pack_matrices(graph, weights, threads), weights).emit()

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._vocab_size

    @property
    def num_blocks(self) -> int:
        """KV blocks in the pool."""
        return self._kv.num_blocks

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one KV block over all layers."""
        return self._kv.bytes_per_block

    @property
    def max_rows(self) -> int:
        """Most rows one `forward` takes."""
        return self._max_rows

    @property
    def isa(self) -> str:
        """Name of the kernel table in use."""
        return self._program.isa

    @property
    def num_threads(self) -> int:
        """Threads that share a step."""
        return self._program.num_threads

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """Compute the batch; the logits, float32 (L, vocab_size), are a buffer that the next call overwrites.

        Raises:
            EngineError: the batch does not fit this executor; nothing was written.
        """
        try:
            return self._program.forward(
                batch.token_ids,
                batch.positions,
                batch.sequence_starts,
                batch.block_tables,
                batch.logit_rows,
                batch.window_starts,
                batch.sink_ends,
            )
        except ValueError as error:
            raise EngineError(f"The native executor refused a step: {error}.") from None

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy KV blocks (source, target) in every layer."""
        for source, target in pairs:
            self._kv.copy_block(source, target)

    def close(self) -> None:
        """Close the weight source; the core's memory goes with this object."""
        self._weights.close()


def available_isas() -> list[str]:
    """Kernel tables this machine can run, best first."""
    return _native.available_isas()


def measure_read_bandwidth(num_bytes: int, num_threads: int, repeats: int = 5) -> float:
    """Bytes a second that threads read together out of a buffer of `num_bytes`, again and again; the best try."""
    return _native.measure_read_bandwidth(num_bytes, num_threads, repeats)


def measure_peak(isa: str, kind: str, num_threads: int, repeats: int = 5) -> float:
    """Operations a second of the instruction a kernel table uses; a multiply and an add are two operations.

    Args:
        isa: name of a kernel table.
        kind: "int8" (dot products), "bf16" (dot products) or "f32" (multiply-adds).
        num_threads: threads that compute at the same time.
        repeats: tries, of which the best counts.

    Returns:
        0.0 where the table has no such instruction or the machine cannot run it.
    """
    return _native.measure_peak(isa, kind, num_threads, repeats)


def _pack_matrices(graph: Graph, weights: WeightSource, threads: int) -> dict[str, _native.PackedMatrix]:
    """Every matrix of the graph, packed once however many ops read it."""
    packed: dict[str, _native.PackedMatrix] = {}
    memory = _native.ChunkedMemory()
    for op in graph.ops:
        match op:
            case Embed() | Linear():
                names: tuple[str, ...] = (op.weight,)
            case FusedLinear():
                names = op.weights
            case _:
                continue
        for name in names:
            if name not in packed:
                info = weights.info(name)
                outputs, inputs = info.shape
                packed[name] = _native.PackedMatrix(
                    str(info.format), weights.raw(name), outputs, inputs, threads, memory
                )
                weights.release(name)
    return packed


class _Emitter:
    """Turns a CoreGraph into calls on a program. One method an op name, see `_EMIT`."""

    def __init__(
        self,
        program: _native.Program,
        core: CoreGraph,
        offsets: dict[str, int],
        matrices: dict[str, _native.PackedMatrix],
        weights: WeightSource,
    ) -> None:
        self._program = program
        self._core = core
        self._matrices = matrices
        self._weights = weights
        self._vectors: dict[str, int] = {}
        self._ropes: dict[str, int] = {}
        self._buffers = {
            name: program.add_buffer(offsets[name], buffer.width, buffer.bits, buffer.selected)
            for name, buffer in core.buffers.items()
        }

    def emit(self) -> None:
        for op in self._core.ops:
            _EMIT[op.name](self, op)
        self._program.set_output(self._buffers[self._core.output])

    def _buffer(self, name: Argument) -> int:
        return _ABSENT if name is None else self._buffers[str(name)]

    def _vector(self, name: Argument) -> int:
        if name is None:
            return _ABSENT
        key = str(name)
        if key not in self._vectors:
            self._vectors[key] = self._program.add_vector(np.ascontiguousarray(self._weights.dequantize(key)))
        return self._vectors[key]

    def rope(self, op: CoreOp) -> None:
        (table,) = op.arguments
        rope = self._core.ropes[str(table)]
        frequencies, factor = inverse_frequencies(rope)
        self._ropes[str(table)] = self._program.rope(
            self._buffer(table), np.ascontiguousarray(frequencies, dtype=np.float64), factor, rope.interleaved
        )

    def embed(self, op: CoreOp) -> None:
        out, weight, scale = op.arguments
        self._program.embed(self._buffer(out), self._matrices[str(weight)], _number(scale))

    def norm(self, op: CoreOp) -> None:
        a, b, total, out, quantized, weight, eps = op.arguments
        buffer = self._buffer
        self._program.norm(
            buffer(a), buffer(b), buffer(total), buffer(out), buffer(quantized), self._vector(weight), _number(eps)
        )

    def linear(self, op: CoreOp) -> None:
        x, quantized, segments = op.arguments
        assert isinstance(segments, tuple)
        calls = []
        for segment in segments:
            assert isinstance(segment, tuple)
            weight, bias, out = segment
            calls.append((self._matrices[str(weight)], self._vector(bias), self._buffer(out)))
        self._program.linear(self._buffer(x), self._buffer(quantized), calls)

    def heads(self, op: CoreOp) -> None:
        q, k, v, table, q_norm, k_norm, eps, scale, *sizes = op.arguments
        num_heads, num_kv_heads, head_dim, layer = (int(_number(size)) for size in sizes)
        self._program.heads(
            self._buffer(q),
            self._buffer(k),
            self._buffer(v),
            self._ropes[str(table)],
            self._vector(q_norm),
            self._vector(k_norm),
            _number(eps),
            _number(scale),
            num_heads,
            num_kv_heads,
            head_dim,
            layer,
        )

    def attention(self, op: CoreOp) -> None:
        q, out, *sizes = op.arguments
        layer, num_heads, window = (int(_number(size)) for size in sizes)
        self._program.attention(self._buffer(q), self._buffer(out), layer, num_heads, window)

    def gated(self, op: CoreOp) -> None:
        gate, up, out, quantized, activation = op.arguments
        buffer = self._buffer
        self._program.gated(buffer(gate), buffer(up), buffer(out), buffer(quantized), str(activation))

    def quantize(self, op: CoreOp) -> None:
        x, out = op.arguments
        self._program.quantize(self._buffer(x), self._buffer(out))

    def add(self, op: CoreOp) -> None:
        a, b, out = op.arguments
        self._program.add(self._buffer(a), self._buffer(b), self._buffer(out))

    def pick(self, op: CoreOp) -> None:
        x, out = op.arguments
        self._program.pick(self._buffer(x), self._buffer(out))


_EMIT: dict[str, Callable[[_Emitter, CoreOp], None]] = {
    "rope": _Emitter.rope,
    "embed": _Emitter.embed,
    "norm": _Emitter.norm,
    "linear": _Emitter.linear,
    "heads": _Emitter.heads,
    "attention": _Emitter.attention,
    "gated": _Emitter.gated,
    "quantize": _Emitter.quantize,
    "add": _Emitter.add,
    "pick": _Emitter.pick,
}


def _number(value: Argument) -> float:
    assert isinstance(value, int | float)
    return value
