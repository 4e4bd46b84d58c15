"""Early exit: the first layers of a model with the whole model's final norm and head."""

from dataclasses import replace

from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.graph import Graph
from vivace.graph.ops import Add, AddRmsNorm, Op, SelectRows
from vivace.types.errors import ConfigError


def cut_after_layer(graph: Graph, num_layers: int) -> Graph:
    """Keep the first `num_layers` layers, then the final norm and head. Works before and after fusing.

    Raises:
        ConfigError: num_layers is not between 1 and the layers of the graph.
    """
    if not 1 <= num_layers <= graph.spec.num_layers:
        raise ConfigError(
            f"A model of {graph.spec.num_layers} layers cannot be cut after layer {num_layers}.",
            f"Choose a number from 1 to {graph.spec.num_layers}.",
        )
    last, kept = f"layers.{graph.spec.num_layers - 1}.", f"layers.{num_layers - 1}."
    ops = [replace(op, x=kept + op.x.removeprefix(last)) if isinstance(op, SelectRows) else op for op in graph.ops]
    attention = replace(graph.spec.attention, windows=graph.spec.attention.windows[:num_layers])
    spec = replace(graph.spec, num_layers=num_layers, attention=attention)
    return _drop_unread(replace(graph, spec=spec, ops=tuple(ops)))


def _drop_unread(graph: Graph) -> Graph:
    """Remove ops whose results nobody reads, and the widths of their buffers."""
    wanted = {graph.output}
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if wanted.isdisjoint(buffers_written(op)):
            continue
        if isinstance(op, AddRmsNorm) and op.out not in wanted:
            op = Add(op.total, op.a, op.b)  # its norm belonged to a layer that is gone  # noqa: PLW2901
        wanted.update(buffers_read(op))
        ops.append(op)
    written = {name for op in ops for name in buffers_written(op)}
    widths = {name: width for name, width in graph.widths.items() if name in written}
    return replace(graph, ops=tuple(reversed(ops)), widths=widths)
