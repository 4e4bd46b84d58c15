"""Turns a lowered op list into a program of the C++ core, over weights that are packed and a KV pool that is there.

Several programs may read the same weights and write the same pool: a model and its early exits do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace import _native
from vivace.execute.lowering import Argument, CoreGraph, CoreOp, lower
from vivace.graph.casts import native_policy
from vivace.graph.graph import Graph
from vivace.graph.passes import cast_inputs, fuse_add_norm, fuse_linears
from vivace.graph.passes.arena import place_buffers
from vivace.numerics.rope import inverse_frequencies
from vivace.numerics.turned import TURN
from vivace.types.drawing import DrawNumbers
from vivace.types.errors import EngineError
from vivace.types.input_scheme import PLAIN_INPUTS, InputScheme
from vivace.types.model import ModelSpec
from vivace.types.run_settings import FILE_WEIGHTS, INT8_WEIGHTS
from vivace.types.step import ForwardBatch
from vivace.types.weights import FLOAT_FORMATS, TensorFormat, WeightSource

_ISAS_WITH_PAIRS = frozenset({"avx512bf16"})  # others would multiply bfloat16 numbers no faster than float32 ones
_ABSENT = -1  # the core's number for a buffer or vector that is not there


@dataclass(frozen=True, slots=True)
class ProgramParts:
    """What the programs of one model share.

    Args:
        weights: where vectors are read from; open while programs are built.
        matrices: packed, by name: the bands of rows of each, see `types.weights.TensorInfo`.
        kv: the pool that keys and values are written to.
        threads: that share every step.
        isa: kernel table to force; empty: the best one.
    """

    weights: WeightSource
    matrices: dict[str, list[_native.PackedMatrix]]
    kv: _native.KvPool
    threads: _native.ThreadPool
    isa: str


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """How linears run: bits of their inputs (2 to 8, 12 or 32), a name of WEIGHT_FORMATS, and what inputs span."""

    activation_bits: int
    weight_format: str = FILE_WEIGHTS
    inputs: InputScheme = PLAIN_INPUTS


def lower_fused(graph: Graph, weights: WeightSource, settings: LinearSettings, isa: str = "") -> CoreGraph:
    """Fuse and lower a valid graph for a kernel table; an empty name is the best one.

    Raises:
        UnsupportedModelError: a width that the kernels cannot take.
        ModelFileError: a scheme lacks the range of an input.
    """
    bits = settings.activation_bits
    policy = native_policy(bits, has_pairs=has_pairs(isa))
    turned = turned_in(weights, settings.weight_format)
    rounded = cast_inputs(
        graph,
        policy,
        quantized_in(weights),
        bfloats_in(weights),
        turned,
        grid_of=lambda buffer: settings.inputs.grid(buffer, bits),
    )
    return lower(fuse_add_norm(fuse_linears(rounded)))


def has_pairs(isa: str = "") -> bool:
    """Whether a kernel table multiplies bfloat16 numbers quicker than float32 ones; an empty name is the best one."""
    return (isa or _native.available_isas()[0]) in _ISAS_WITH_PAIRS


def quantized_in(weights: WeightSource) -> Callable[[str], bool]:
    """Whether a weight, by name, is stored in codes."""
    return lambda name: weights.info(name).format not in FLOAT_FORMATS


def bfloats_in(weights: WeightSource) -> Callable[[str], bool]:
    """Whether a weight, by name, is stored in BF16 and has whole groups of 32 columns."""

    def is_bfloat(name: str) -> bool:
        info = weights.info(name)
        return info.format is TensorFormat.BF16 and info.shape[-1] % 32 == 0

    return is_bfloat


def turned_in(weights: WeightSource, weight_format: str) -> Callable[[str], bool]:
    """Whether a matrix, by name, is requantised to turned codes: those whose rows 64 divides, nested ones excepted."""

    def is_turned(name: str) -> bool:
        info = weights.info(name)
        return info.shape[1] % TURN == 0 and info.format is not TensorFormat.N8_0

    return is_turned if weight_format == INT8_WEIGHTS else lambda _name: False


def build_program(core: CoreGraph, spec: ModelSpec, parts: ProgramParts, max_rows: int) -> _native.Program:
    """Emit a lowered graph for steps of at most `max_rows` rows.

    Raises:
        ValueError: the core cannot take a number.
    """
    attention = spec.attention
    sizes = {name: buffer.row_bytes * max_rows for name, buffer in core.buffers.items()}
    offsets, arena_bytes = place_buffers(core.lifetimes(), sizes)
    program = _native.Program(parts.isa, parts.threads, max_rows, max_rows, max(arena_bytes, 64), parts.kv)
    program.set_attention_shape(attention.num_heads, attention.num_kv_heads, attention.head_dim, spec.vocab_size)
    emitter = _Emitter(program, core, offsets, parts.matrices, parts.weights)
    emitter.emit()
    for name in (*emitter.vectors, *parts.matrices):  # reading a vector maps a good part of its neighbours as well
        parts.weights.release(name)
    return program


def forward(program: _native.Program, batch: ForwardBatch) -> NDArray[np.float32]:
    """Run a batch; see `Executor.forward`.

    Raises:
        EngineError: the batch does not fit the program; nothing was written.
    """
    start(program, batch)
    return program.finish()


def start(program: _native.Program, batch: ForwardBatch) -> None:
    """Let the helpers of a program begin with a batch, which stays alive and as it is until `program.finish`.

    Raises:
        EngineError: the batch does not fit the program; nothing was written.
    """
    try:
        program.start(
            batch.token_ids,
            batch.positions,
            batch.sequence_starts,
            batch.block_tables,
            batch.logit_rows,
            batch.window_starts,
            batch.sink_ends,
            batch.slots,
            batch.local_tables,
            batch.observe_rows,
            batch.row_levels,
        )
    except ValueError as error:
        raise EngineError(f"The native executor refused a step: {error}.") from None


def draw(
    program: _native.Program,
    logits: NDArray[np.float32],
    rows: Sequence[DrawNumbers],
    histories: Sequence[NDArray[np.int32]],
) -> list[int]:
    """Tokens drawn from rows of logits, by the threads of a step; see `types.drawing.Drawer`.

    Raises:
        EngineError: logits of another vocabulary, or a token outside it.
    """
    numbers = [row.numbers for row in rows]
    try:
        return program.draw(
            logits, numbers, histories, [row.bias_ids for row in rows], [row.bias_values for row in rows]
        )
    except ValueError as error:
        raise EngineError(f"The native executor refused to draw: {error}.") from None


def prepare(program: _native.Program, batch: ForwardBatch) -> None:
    """Say which step would follow; see `types.relay.RelayExecutor`.

    Raises:
        EngineError: the batch does not fit the program.
    """
    try:
        program.prepare(
            batch.positions,
            batch.sequence_starts,
            batch.block_tables,
            batch.logit_rows,
            batch.window_starts,
            batch.sink_ends,
            batch.slots,
            batch.local_tables,
            batch.row_levels,
        )
    except ValueError as error:
        raise EngineError(f"The native executor refused a step: {error}.") from None


def relay(
    program: _native.Program,
    rows: Sequence[DrawNumbers],
    histories: Sequence[NDArray[np.int32]],
    stops: Sequence[NDArray[np.int32]],
) -> tuple[list[int], NDArray[np.float32] | None]:
    """Finish, draw and go on; see `types.relay.RelayExecutor`.

    Raises:
        EngineError: the rows are not those of the step under way, or a token is outside the vocabulary.
    """
    numbers = [row.numbers for row in rows]
    biases = [row.bias_ids for row in rows], [row.bias_values for row in rows]
    try:
        tokens, goes_on = program.relay(numbers, histories, *biases, stops)
    except ValueError as error:
        raise EngineError(f"The native executor refused to draw: {error}.") from None
    return tokens, None if goes_on else program.logits()


class _Emitter:
    """Turns a CoreGraph into calls on a program. One method an op name, see `_EMIT`."""

    def __init__(
        self,
        program: _native.Program,
        core: CoreGraph,
        offsets: dict[str, int],
        matrices: dict[str, list[_native.PackedMatrix]],
        weights: WeightSource,
    ) -> None:
        self._program = program
        self._core = core
        self._matrices = matrices
        self._weights = weights
        self.vectors: dict[str, int] = {}
        self._ropes: dict[str, int] = {}
        self._buffers = {
            name: program.add_buffer(
                offsets[name],
                buffer.width,
                buffer.bits,
                buffer.selected,
                buffer.turned,
                [] if buffer.grid is None else [float(number) for number in buffer.grid],
            )
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
        if key not in self.vectors:
            self.vectors[key] = self._program.add_vector(np.ascontiguousarray(self._weights.dequantize(key)))
        return self.vectors[key]

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
            bands = zip(self._weights.info(str(weight)).row_bands, self._matrices[str(weight)], strict=True)
            numbers = self._vector(bias), self._buffer(out)
            calls += [(matrix, *numbers, band.begin) for band, matrix in bands]
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
        others = (other for other in self._core.ops if other is not op)
        is_only_reader = not any(gate in other.reads or up in other.reads for other in others)
        self._program.gated(buffer(gate), buffer(up), buffer(out), buffer(quantized), str(activation), is_only_reader)

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
