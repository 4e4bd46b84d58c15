"""Fuse linears that read the same buffer: q, k and v; gate and up. The row is then read, and quantised, once."""

from dataclasses import replace

from vivace.graph.graph import Graph
from vivace.graph.ops import FusedLinear, Linear, Op


def fuse_linears(graph: Graph) -> Graph:
    """Replace each group of linears over one buffer by a FusedLinear where the first of them stood.

    Buffer names stay, and so do the values in them.
    """
    groups: dict[str, list[Linear]] = {}
    for op in graph.ops:
        if isinstance(op, Linear):
            groups.setdefault(op.x, []).append(op)
    ops: list[Op] = []
    for op in graph.ops:
        if not isinstance(op, Linear) or len(groups[op.x]) == 1:
            ops.append(op)
        elif op is groups[op.x][0]:
            ops.append(_fuse(groups[op.x]))
    return replace(graph, ops=tuple(ops))


def _fuse(linears: list[Linear]) -> FusedLinear:
    return FusedLinear(
        outs=tuple(linear.out for linear in linears),
        x=linears[0].x,
        weights=tuple(linear.weight for linear in linears),
        biases=tuple(linear.bias for linear in linears),
    )
