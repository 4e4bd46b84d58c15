"""Fuse a residual add with the norm of its sum, so that the row is in cache when it is normed."""

from dataclasses import replace

from vivace.graph.graph import Graph
from vivace.graph.ops import Add, AddRmsNorm, Op, RmsNorm


def fuse_add_norm(graph: Graph) -> Graph:
    """Replace each Add whose sum is normed whole by an AddRmsNorm where the Add stood; buffer names stay.

    Norms of anything but a sum (Gemma's post norms, per-head norms, the final norm of selected rows) are left alone.
    """
    sums = {op.out for op in graph.ops if isinstance(op, Add)}
    norm_of_sum: dict[str, RmsNorm] = {}
    for op in graph.ops:
        if isinstance(op, RmsNorm) and op.num_groups == 1 and op.x in sums:
            norm_of_sum.setdefault(op.x, op)
    fused_away = {norm.out for norm in norm_of_sum.values()}
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, Add) and op.out in norm_of_sum:
            norm = norm_of_sum[op.out]
            ops.append(AddRmsNorm(op.out, norm.out, op.a, op.b, norm.weight, norm.eps))
        elif not (isinstance(op, RmsNorm) and op.out in fused_away):
            ops.append(op)
    return replace(graph, ops=tuple(ops))
