"""From a model's op list to the ops of the native core: the last pass, and the only one that knows kernels.

It pairs each buffer with a quantised twin where a quantised linear reads it, folds per-head norm, rope and the KV write
into one op, and names what every op reads and writes, so that buffers can be placed. It makes values only; `native.py`
turns them into calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from vivace.graph.access import buffers_read
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
from vivace.graph.passes.arena import Lifetime, selected_buffers
from vivace.types.errors import UnsupportedModelError
from vivace.types.input_scheme import InputGrid
from vivace.types.model import RopeSpec

ROW_WISE = frozenset({"norm", "linear", "heads", "quantize", "gated", "add"})
"""Ops that the core may do block by block of rows, see `Op::is_row_wise` in native/program/ops.h."""
# Ops that the core does a head at a time where streams write.
JOINED = ("heads", "attention", "quantize")

Argument = str | int | float | None | tuple["Argument", ...]


@dataclass(frozen=True, slots=True)
class CoreOp:
    """One call on the native core. `arguments` still hold names of buffers and weights; None is an absent one."""

    name: str
    arguments: tuple[Argument, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CoreBuffer:
    """Rows of `width` columns of 32 (float), 16 (bfloat16), 12 or 8 bits; the last two with scales and sums.

    Turned rows (numerics/turned.py) have 8 bits and groups of 64 columns instead of 32; `grid` is of the others.
    """

    width: int
    bits: int
    selected: bool
    turned: bool = False
    grid: InputGrid | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, a multiple of 64 (native/kernels/calls.h has the layout of a quantised row)."""
        beside = 0 if self.bits > 12 else self.width // 64 * 8 if self.turned else self.width // 32 * 16
        used = self.width * self.bits // 8 + beside
        return -(-used // 64) * 64 + (64 if self.grid is not None and self.grid.is_shifted else 0)


@dataclass(frozen=True, slots=True)
class CoreGraph:
    """What the native core runs: ops in order, buffers by name, ropes by the name of their table's buffer."""

    ops: tuple[CoreOp, ...]
    buffers: dict[str, CoreBuffer]
    ropes: dict[str, RopeSpec]
    output: str

    def lifetimes(self) -> dict[str, Lifetime]:
        """First and last op that touches each buffer; the output lives to the end.

        The core may take some rows through several row-wise ops while others are still before them, so a buffer that
        one of them touches lives from the first to the last of those that follow each other. So it may with heads,
        attention and the rounding behind it (`native/program/joined.h`).
        """
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        begin = 0
        for row_wise, ops in groupby(self.ops, key=lambda op: op.name in ROW_WISE):
            together = list(ops)
            for number, op in enumerate(together, begin):
                for name in (*op.reads, *op.writes):
                    first.setdefault(name, begin if row_wise else number)
                    last[name] = begin + len(together) - 1 if row_wise else number
            begin += len(together)
        for number, joined in enumerate(zip(self.ops, self.ops[1:], self.ops[2:], strict=False)):
            if tuple(op.name for op in joined) == JOINED:
                for name in (name for op in joined for name in (*op.reads, *op.writes)):
                    first[name], last[name] = min(first[name], number), max(last[name], number + 2)
        last[self.output] = len(self.ops) - 1
        return {name: Lifetime(first[name], last[name]) for name in first}


CAST_BITS = {"int12": 12, "int8": 8, "int8-turned": 8, "bf16": 16}
"""Precisions of casts that the core computes with; what reads no cast reads float32."""


def lower(graph: Graph) -> CoreGraph:
    """Lower a graph.

    Args:
        graph: fused or not; linears over quantised weights read casts (`graph.passes.cast_inputs`).

    Raises:
        UnsupportedModelError: a width that the kernels cannot take, or a cast to a precision that they do not have.
    """
    return _Lowering(graph).lower()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._casts = {op.x: op for op in graph.ops if isinstance(op, Cast)}
        self._cast_of = {op.out: op for op in self._casts.values()}
        self._selected = selected_buffers(graph)
        self._producers: dict[str, Op] = {}
        self._ropes: dict[RopeSpec, str] = {}
        self._ops: list[CoreOp] = []
        self._buffers: dict[str, CoreBuffer] = {}
        self._float_readers = self._find_float_readers()

    def lower(self) -> CoreGraph:
        for op in self._graph.ops:
            self._check_widths(op)
            _LOWER[type(op)](self, op)
        tables = [CoreOp("rope", (name,), reads=(), writes=(name,)) for name in self._ropes.values()]
        ropes = {name: rope for rope, name in self._ropes.items()}
        return CoreGraph((*tables, *self._ops), self._buffers, ropes, self._graph.output)

    def _find_float_readers(self) -> set[str]:
        """Buffers that some op reads as floats; casts do not, the op that writes their input makes both."""
        floats: set[str] = {self._graph.output}
        for op in self._graph.ops:
            if not isinstance(op, Cast):
                floats.update(name for name in buffers_read(op) if name not in self._cast_of)
        return floats

    def _check_widths(self, op: Op) -> None:
        head_dim = op.head_dim if isinstance(op, Attention) else 16
        widths = [self._graph.widths[op.x], head_dim] if isinstance(op, RmsNorm) else [head_dim]
        for width in widths:
            if width % 16 != 0:
                raise UnsupportedModelError(
                    f"The model has a width of {width}, which 16 does not divide.",
                    "The native executor needs hidden and head sizes that are multiples of 16; "
                    "use the reference executor for this model.",
                )

    def float_buffer(self, name: str) -> str:
        """Declare the float buffer of a graph's buffer."""
        self._buffers.setdefault(name, CoreBuffer(self._graph.widths[name], 32, name in self._selected))
        return name

    def outputs(self, name: str) -> tuple[str | None, str | None]:
        """The float and the quantised buffer of an op that can write both; None where nobody reads it."""
        floats = self.float_buffer(name) if name in self._float_readers else None
        return floats, self._twin(self._casts[name]) if name in self._casts else None

    def _twin(self, cast: Cast) -> str:
        bits, turned = CAST_BITS[cast.precision], cast.precision == "int8-turned"
        width = self._graph.widths[cast.x]
        self._buffers.setdefault(cast.out, CoreBuffer(width, bits, cast.x in self._selected, turned, cast.grid))
        return cast.out

    def emit(
        self, name: str, arguments: tuple[Argument, ...], reads: tuple[str | None, ...], writes: tuple[str | None, ...]
    ) -> None:
        """Append one op; absent buffers (None) neither read nor written."""
        self._ops.append(CoreOp(name, arguments, _present(reads), _present(writes)))

    def quantize_if_read(self, name: str) -> None:
        """After an op that writes floats only: make the quantised twin when a linear wants it."""
        if name in self._casts:
            twin = self._twin(self._casts[name])
            self.emit("quantize", (name, twin), (name,), (twin,))

    def embed(self, op: Embed) -> None:
        out = self.float_buffer(op.out)
        self.emit("embed", (out, op.weight, op.scale), (), (out,))
        self.quantize_if_read(out)

    def rms_norm(self, op: RmsNorm) -> None:
        self._producers[op.out] = op
        if op.num_groups > 1 or self._is_head_norm(op):
            return  # part of the heads op, see attention()
        out, quantized = self.outputs(op.out)
        self.emit("norm", (op.x, None, None, out, quantized, op.weight, op.eps), (op.x,), (out, quantized))

    def _is_head_norm(self, op: RmsNorm) -> bool:
        """MQA's key norm has one group: known by the rope that reads it."""
        return any(isinstance(other, Rope) and other.x == op.out for other in self._graph.ops)

    def add_rms_norm(self, op: AddRmsNorm) -> None:
        total = self.float_buffer(op.total)
        out, quantized = self.outputs(op.out)
        self.emit("norm", (op.a, op.b, total, out, quantized, op.weight, op.eps), (op.a, op.b), (total, out, quantized))
        self.quantize_if_read(total)

    def linear(self, op: Linear | FusedLinear) -> None:
        outs = (op.out,) if isinstance(op, Linear) else op.outs
        biases = (op.bias,) if isinstance(op, Linear) else op.biases
        weights = _weights(op)
        cast = self._cast_of.get(op.x)
        x, quantized = (op.x, None) if cast is None else (None, self._twin(cast))
        targets = tuple(self.float_buffer(out) for out in outs)
        segments = tuple(zip(weights, biases, targets, strict=True))
        self.emit("linear", (x, quantized, segments), (x, quantized), targets)
        for target in targets:
            self.quantize_if_read(target)

    def rope(self, op: Rope) -> None:
        self._producers[op.out] = op

    def attention(self, op: Attention) -> None:
        q, q_norm, rope = self._head_source(op.q)
        k, k_norm, _ = self._head_source(op.k)
        table = self._ropes.setdefault(rope.rope, f"rope:{len(self._ropes)}")
        self._buffers.setdefault(table, CoreBuffer(rope.rope.dim, 32, False))
        norm = q_norm or k_norm
        weights = (q_norm.weight if q_norm else None, k_norm.weight if k_norm else None)
        sizes = (op.num_heads, op.num_kv_heads, op.head_dim, op.layer)
        self.emit(
            "heads",
            (q, k, op.v, table, *weights, norm.eps if norm else 0.0, op.scale, *sizes),
            (q, k, op.v, table),
            (q, k),
        )
        out = self.float_buffer(op.out)
        self.emit("attention", (q, out, op.layer, op.num_heads, op.window or 0), (q,), (out,))
        self.quantize_if_read(out)

    def _head_source(self, name: str) -> tuple[str, RmsNorm | None, Rope]:
        """The linear's output that heads come from, with the norm and the rope on the way."""
        rope = self._producers[name]
        assert isinstance(rope, Rope), "every architecture rotates queries and keys"
        norm = self._producers.get(rope.x)
        if isinstance(norm, RmsNorm):
            return norm.x, norm, rope
        return rope.x, None, rope

    def gated(self, op: GatedActivation) -> None:
        out, quantized = self.outputs(op.out)
        self.emit("gated", (op.gate, op.up, out, quantized, op.activation), (op.gate, op.up), (out, quantized))

    def cast(self, op: Cast) -> None:
        """Nothing of its own: the op that writes `op.x` makes the twin."""
        if op.precision not in CAST_BITS or self._casts[op.x] is not op:
            raise UnsupportedModelError(
                f"The native core has no kernel that reads {op.x} in {op.precision}.",
                f"It reads one of {', '.join(CAST_BITS)}; use the reference executor for other casts.",
            )

    def add(self, op: Add) -> None:
        out = self.float_buffer(op.out)
        self.emit("add", (op.a, op.b, out), (op.a, op.b), (out,))
        self.quantize_if_read(out)

    def select(self, op: SelectRows) -> None:
        out = self.float_buffer(op.out)
        self.emit("pick", (op.x, out), (op.x,), (out,))
        self.quantize_if_read(out)


_LOWER: dict[type[Op], Callable[..., None]] = {
    Embed: _Lowering.embed,
    RmsNorm: _Lowering.rms_norm,
    AddRmsNorm: _Lowering.add_rms_norm,
    Linear: _Lowering.linear,
    FusedLinear: _Lowering.linear,
    Rope: _Lowering.rope,
    Attention: _Lowering.attention,
    GatedActivation: _Lowering.gated,
    Add: _Lowering.add,
    SelectRows: _Lowering.select,
    Cast: _Lowering.cast,
}


def _weights(op: Linear | FusedLinear) -> tuple[str, ...]:
    return (op.weight,) if isinstance(op, Linear) else op.weights


def _present(names: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)
