"""Write a cast policy into an op list: ops that may read less than float32 read rounded copies of their inputs."""

from collections.abc import Callable
from dataclasses import replace

from vivace.graph.access import buffers_read, with_reads
from vivace.graph.casts import CastPolicy, input_precision
from vivace.graph.graph import Graph
from vivace.graph.ops import Cast, Linear, Op


def cast_inputs(graph: Graph, policy: CastPolicy, is_quantized: Callable[[str], bool]) -> Graph:
    """Put a Cast before the first reader of each buffer in each precision; readers share it.

    Runs before linears are fused, so that those over floats and those over codes read what each wants.

    Args:
        graph: without FusedLinear ops and casts.
        policy: a row of POLICIES.
        is_quantized: whether the weight of that name is stored quantised.
    """
    ops: list[Op] = []
    widths = dict(graph.widths)
    done: set[str] = set()
    for op in graph.ops:
        over_codes = isinstance(op, Linear) and is_quantized(op.weight)
        precision = input_precision(op, policy, over_codes=over_codes)
        if precision == "f32":
            ops.append(op)
            continue
        names = {name: f"{name}:{precision}" for name in buffers_read(op)}
        for name, cast in names.items():
            if cast not in done:
                done.add(cast)
                widths[cast] = widths[name]
                ops.append(Cast(cast, name, precision))
        ops.append(with_reads(op, names))
    return replace(graph, ops=tuple(ops), widths=widths)
