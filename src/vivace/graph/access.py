"""What an op reads and writes: the one table that passes, checks and planners walk a graph by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

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

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Fields:
    """Names of an op's fields that hold buffers; a field may hold one name or a tuple of names."""

    reads: tuple[str, ...]
    writes: tuple[str, ...] = ("out",)


_FIELDS: dict[type[Op], _Fields] = {
    Embed: _Fields(reads=()),
    RmsNorm: _Fields(reads=("x",)),
    Linear: _Fields(reads=("x",)),
    Rope: _Fields(reads=("x",)),
    Attention: _Fields(reads=("q", "k", "v")),
    GatedActivation: _Fields(reads=("gate", "up")),
    Add: _Fields(reads=("a", "b")),
    SelectRows: _Fields(reads=("x",)),
    FusedLinear: _Fields(reads=("x",), writes=("outs",)),
    AddRmsNorm: _Fields(reads=("a", "b"), writes=("total", "out")),
    Cast: _Fields(reads=("x",)),
}


def buffers_read(op: Op) -> tuple[str, ...]:
    """Buffers that the op reads."""
    return tuple(_names(op, _FIELDS[type(op)].reads))


def buffers_written(op: Op) -> tuple[str, ...]:
    """Buffers that the op writes."""
    return tuple(_names(op, _FIELDS[type(op)].writes))


def with_reads(op: Op, names: Mapping[str, str]) -> Op:
    """The op reading other buffers: each buffer it reads becomes what `names` says."""
    changes: dict[str, Any] = {}
    for field in _FIELDS[type(op)].reads:
        value: str = getattr(op, field)  # no op reads a tuple of buffers
        changes[field] = names.get(value, value)
    return replace(op, **changes)


def weights_read(op: Op, graph: Graph) -> dict[str, Shape]:
    """Weights that the op reads, with the shapes that its buffers ask for."""
    widths = graph.widths
    match op:
        case Embed():
            return {op.weight: (graph.spec.vocab_size, widths[op.out])}
        case RmsNorm():
            return {op.weight: (widths[op.x] // op.num_groups,)}
        case AddRmsNorm():
            return {op.weight: (widths[op.total],)}
        case Linear():
            return _linear_weights(op.weight, op.bias, widths[op.out], widths[op.x])
        case FusedLinear():
            shapes: dict[str, Shape] = {}
            for out, weight, bias in zip(op.outs, op.weights, op.biases, strict=True):
                shapes |= _linear_weights(weight, bias, widths[out], widths[op.x])
            return shapes
        case _:
            return {}


def _linear_weights(weight: str, bias: str | None, width_out: int, width_in: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {weight: (width_out, width_in)}
    if bias is not None:
        shapes[bias] = (width_out,)
    return shapes


def _names(op: Op, fields: tuple[str, ...]) -> Iterator[str]:
    for field in fields:
        value: str | tuple[str, ...] = getattr(op, field)
        if isinstance(value, str):
            yield value
        else:
            yield from value
