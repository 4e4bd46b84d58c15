"""Check that a graph makes sense before an executor trusts it with pointers."""

from collections.abc import Callable

from vivace.graph.access import Shape, buffers_read, buffers_written, weights_read
from vivace.graph.graph import Graph
from vivace.graph.ops import (
    Add,
    AddRmsNorm,
    Attention,
    Cast,
    GatedActivation,
    Op,
    RmsNorm,
    Rope,
    SelectRows,
)
from vivace.graph.passes.arena import selected_buffers
from vivace.graph.weights import weight_shapes
from vivace.numerics.rope import inverse_frequencies
from vivace.types.errors import ConfigError


def validate(graph: Graph) -> None:
    """Check reads after writes, single writes, widths, weight names and shapes, layers and the output.

    Raises:
        ConfigError: the graph is wrong; the message names the op. This is a fault of an architecture or a pass, or a
            ModelSpec whose numbers do not fit together.
    """
    known_weights = weight_shapes(graph.spec)
    selected = selected_buffers(graph)
    for rope in {op.rope for op in graph.ops if isinstance(op, Rope)}:
        inverse_frequencies(rope)  # raises where a step would
    written: set[str] = set()
    for op in graph.ops:
        _check_buffers(op, graph, written)
        rows = {name in selected for name in buffers_read(op)}
        _require(len(rows) < 2, op, "reads buffers of all rows and of selected rows")
        for holds, message in _width_rules(op, graph):
            _require(holds, op, message)
        _check_weights(op, graph, known_weights)
        written.update(buffers_written(op))
    if graph.output not in written:
        raise ConfigError(f"No op writes the output {graph.output!r}.")


def _check_buffers(op: Op, graph: Graph, written: set[str]) -> None:
    for name in buffers_read(op):
        _require(name in written, op, f"reads {name!r} before it is written")
    for name in buffers_written(op):
        _require(name not in written, op, f"writes {name!r} a second time")
        _require(graph.widths.get(name, 0) > 0, op, f"writes {name!r}, which has no width")


def _check_weights(op: Op, graph: Graph, known: dict[str, Shape]) -> None:
    for name, shape in weights_read(op, graph).items():
        _require(name in known, op, f"reads an unknown weight {name!r}")
        _require(known.get(name) == shape, op, f"reads {name!r} as {shape}, which is {known.get(name)}")


def _require(holds: bool, op: Op, message: str) -> None:
    if not holds:
        raise ConfigError(f"The op {op} {message}.", "Check the model's settings (heads, head size, layers).")


Rule = tuple[bool, str]


def _width_rules(op: Op, graph: Graph) -> list[Rule]:
    rules = _RULES.get(type(op))
    return rules(op, graph) if rules is not None else []


def _same_widths(op: Op, graph: Graph) -> list[Rule]:
    widths = {graph.widths[name] for name in (*buffers_read(op), *buffers_written(op))}
    return [(len(widths) == 1, f"mixes widths {sorted(widths)}")]


def _norm_rules(op: Op, graph: Graph) -> list[Rule]:
    assert isinstance(op, RmsNorm)
    divides = op.num_groups > 0 and graph.widths[op.x] % op.num_groups == 0
    return [*_same_widths(op, graph), (divides, f"cannot cut {graph.widths[op.x]} lanes into {op.num_groups} groups")]


def _rope_rules(op: Op, graph: Graph) -> list[Rule]:
    assert isinstance(op, Rope)
    factors = op.rope.frequency_factors
    return [
        *_same_widths(op, graph),
        (op.num_heads * op.head_dim == graph.widths[op.x], "has heads that do not fill the row"),
        (0 < op.rope.dim <= op.head_dim and op.rope.dim % 2 == 0, f"rotates {op.rope.dim} lanes of {op.head_dim}"),
        (factors is None or len(factors) == op.rope.dim // 2, "has frequency factors of the wrong length"),
    ]


def _attention_rules(op: Op, graph: Graph) -> list[Rule]:
    assert isinstance(op, Attention)
    width = graph.widths
    return [
        (0 <= op.layer < graph.spec.num_layers, f"uses the KV pages of layer {op.layer}"),
        (op.num_kv_heads > 0 and op.num_heads % op.num_kv_heads == 0, "has heads that its kv heads do not divide"),
        (width[op.q] == width[op.out] == op.num_heads * op.head_dim, "has queries of the wrong width"),
        (width[op.k] == width[op.v] == op.num_kv_heads * op.head_dim, "has keys or values of the wrong width"),
        (op.window is None or op.window > 0, f"has a window of {op.window}"),
    ]


_RULES: dict[type[Op], Callable[[Op, Graph], list[Rule]]] = {
    RmsNorm: _norm_rules,
    Rope: _rope_rules,
    Attention: _attention_rules,
    GatedActivation: _same_widths,
    Add: _same_widths,
    AddRmsNorm: _same_widths,
    Cast: _same_widths,
    SelectRows: _same_widths,
}
