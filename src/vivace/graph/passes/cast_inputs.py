"""Write a cast policy into an op list: ops that may read less than float32 read rounded copies of their inputs."""

from collections.abc import Callable
from dataclasses import replace

from vivace.graph.access import buffers_read, with_reads
from vivace.graph.casts import POLICIES, CastPolicy, input_precision
from vivace.graph.graph import Graph
from vivace.graph.ops import Cast, Linear, Op
from vivace.types.input_scheme import InputGrid

GRIDDED = ("int8", "int12")
"""Precisions that have a grid."""


def no_weight(_name: str) -> bool:
    """For models without such weights, or policies that do not care."""
    return False


def no_grid(_buffer: str) -> InputGrid | None:
    """For codes that span each group of columns by itself."""
    return None


def cast_inputs(
    graph: Graph,
    policy: CastPolicy,
    is_quantized: Callable[[str], bool],
    is_bfloat: Callable[[str], bool] = no_weight,
    is_turned: Callable[[str], bool] = no_weight,
    *,
    grid_of: Callable[[str], InputGrid | None] = no_grid,
) -> Graph:
    """Put a Cast before the first reader of each buffer in each precision; readers share it.

    Runs before linears are fused, so that those over floats and those over codes read what each wants.

    Args:
        graph: without FusedLinear ops and casts.
        policy: a row of POLICIES.
        is_quantized: whether the weight of that name is stored quantised.
        is_bfloat: whether it is stored in BF16.
        is_turned: whether it runs in turned codes, whatever it is stored in (numerics/turned.py).
        grid_of: what codes of a buffer span, of linears in the policy's integer precision.
    """
    ops: list[Op] = []
    widths = dict(graph.widths)
    done: set[str] = set()
    for op in graph.ops:
        over_codes = isinstance(op, Linear) and is_quantized(op.weight)
        over_bfloats = isinstance(op, Linear) and is_bfloat(op.weight)
        turned = isinstance(op, Linear) and is_turned(op.weight)
        held = POLICIES["native-turned"] if turned else policy
        precision = input_precision(op, held, over_codes=over_codes, over_bfloats=over_bfloats)
        if precision == "f32":
            ops.append(op)
            continue
        names = {name: f"{name}:{precision}" for name in buffers_read(op)}
        for name, cast in names.items():
            if cast not in done:
                done.add(cast)
                widths[cast] = widths[name]
                ops.append(Cast(cast, name, precision, grid_of(name) if precision in GRIDDED else None))
        ops.append(with_reads(op, names))
    return replace(graph, ops=tuple(ops), widths=widths)
