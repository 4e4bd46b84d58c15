"""Passes keep what a graph means; the arena never lets two living buffers meet; wrong graphs are named."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories.tiny_models import ARCHITECTURES, tiny_spec
from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.graph.ops import Add, AddRmsNorm, Attention, FusedLinear, Linear, RmsNorm, Rope
from vivace.graph.passes import ArenaPlan, cut_after_layer, fuse_add_norm, fuse_linears, plan_arena, validate
from vivace.graph.passes.arena import ALIGNMENT, buffer_lifetimes, selected_buffers
from vivace.types.errors import ConfigError

architectures = st.sampled_from(ARCHITECTURES)
shapes = st.tuples(st.integers(1, 4), st.sampled_from([(4, 1), (4, 2), (6, 6)]), st.sampled_from([8, 16, 22]))


def some_graph(architecture: str, shape: tuple[int, tuple[int, int], int], fused: bool) -> Graph:
    num_layers, (num_heads, num_kv_heads), head_dim = shape
    graph = build_graph(
        tiny_spec(
            architecture, num_layers=num_layers, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim
        )
    )
    return fuse_linears(fuse_add_norm(graph)) if fused else graph


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_linears_over_one_input_become_one_op(architecture: str) -> None:
    fused = fuse_linears(build_graph(tiny_spec(architecture)))
    validate(fused)
    groups = [tuple(name.split(".", 2)[2] for name in op.weights) for op in fused.ops if isinstance(op, FusedLinear)]
    assert groups == [("attn.q.weight", "attn.k.weight", "attn.v.weight"), ("mlp.gate.weight", "mlp.up.weight")] * 3
    assert sum(isinstance(op, Linear) for op in fused.ops) == 2 * 3 + 1  # o, down, head


def test_fused_linears_keep_their_biases() -> None:
    fused = fuse_linears(build_graph(tiny_spec("qwen2")))
    biases = [op.biases for op in fused.ops if isinstance(op, FusedLinear)]
    assert biases[:2] == [("layers.0.attn.q.bias", "layers.0.attn.k.bias", "layers.0.attn.v.bias"), (None, None)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_residual_sum_is_normed_where_it_is_made(architecture: str) -> None:
    graph = build_graph(tiny_spec(architecture))
    fused = fuse_add_norm(graph)
    validate(fused)
    assert sum(isinstance(op, AddRmsNorm) for op in fused.ops) == 2 * 3 - 1
    assert sum(isinstance(op, Add) for op in fused.ops) == 1  # the last: its rows are selected before the norm
    alone = sum(isinstance(op, RmsNorm) for op in fused.ops)
    assert alone == {"llama": 2, "qwen2": 2, "qwen3": 2 + 6, "gemma3": 2 + 6 + 6}[architecture]


@given(architectures, shapes, st.booleans())
def test_passes_may_run_in_any_order_and_twice(architecture: str, shape: tuple, both: bool) -> None:
    graph = some_graph(architecture, shape, fused=False)
    fused = fuse_linears(fuse_add_norm(graph))
    assert fuse_add_norm(fuse_linears(graph)) == fused
    assert fuse_linears(fuse_add_norm(fused)) == fused
    validate(fused)


@given(architectures, shapes, st.booleans(), st.integers(1, 4))
def test_a_cut_leaves_no_trace_of_later_layers(architecture: str, shape: tuple, fused: bool, layers: int) -> None:
    graph = some_graph(architecture, shape, fused)
    if layers > graph.spec.num_layers:
        with pytest.raises(ConfigError, match=f"cut after layer {layers}"):
            cut_after_layer(graph, layers)
        return
    cut = cut_after_layer(graph, layers)
    validate(cut)
    assert cut.spec.num_layers == layers
    assert [op.layer for op in cut.ops if isinstance(op, Attention)] == list(range(layers))
    assert not [name for name in cut.widths if name.startswith(f"layers.{layers}.")]
    if layers == graph.spec.num_layers:
        assert cut == graph


@given(architectures, shapes, st.booleans())
def test_living_buffers_never_share_memory(architecture: str, shape: tuple, fused: bool) -> None:
    graph = some_graph(architecture, shape, fused)
    check_plan(graph, plan_arena(graph))


@st.composite
def random_lists(draw: st.DrawFn) -> Graph:
    """Adds over buffers of any age: liveness of any shape. Widths differ, which no validated graph would have."""
    spec = tiny_spec(num_layers=1)
    widths = {"x0": draw(st.integers(1, 100))}
    ops = [build_graph(spec).ops[0]]
    ops[0] = replace(ops[0], out="x0")  # type: ignore[call-arg]
    for number in range(1, draw(st.integers(2, 30))):
        before = st.sampled_from(sorted(widths))
        ops.append(Add(f"x{number}", draw(before), draw(before)))
        widths[f"x{number}"] = draw(st.integers(1, 100))
    return Graph(spec, tuple(ops), widths, f"x{len(ops) - 1}")


@given(random_lists())
def test_living_buffers_of_any_list_never_share_memory(graph: Graph) -> None:
    check_plan(graph, plan_arena(graph))


def check_plan(graph: Graph, plan: ArenaPlan) -> None:
    """Walk the ops with a map of who owns each float: no owner is overwritten before its last reader has run."""
    assert plan.offsets.keys() | plan.selected_offsets.keys() == graph.widths.keys()
    assert plan.offsets.keys().isdisjoint(plan.selected_offsets)
    assert plan.selected_offsets.keys() == selected_buffers(graph)
    for offsets, size in (
        (plan.offsets, plan.floats_per_row),
        (plan.selected_offsets, plan.selected_floats_per_row),
    ):
        owners: list[str | None] = [None] * size
        for op in graph.ops:
            for name in buffers_written(op):
                if name in offsets:
                    assert offsets[name] % ALIGNMENT == 0
                    owners[offsets[name] : offsets[name] + graph.widths[name]] = [name] * graph.widths[name]
            assert len(owners) == size
            # After its writes an op's inputs must still be whole (no output on top of an input), and so its outputs.
            for name in (*buffers_read(op), *buffers_written(op)):
                if name in offsets:
                    assert set(owners[offsets[name] : offsets[name] + graph.widths[name]]) == {name}
        if graph.output in offsets:
            assert graph.output in owners


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_arena_is_as_small_as_the_buffers_alive_at_once(architecture: str) -> None:
    graph = some_graph(architecture, (4, (4, 2), 16), fused=True)
    plan, lives = plan_arena(graph), buffer_lifetimes(graph)

    def alive_at(number: int) -> int:
        alive = [name for name, life in lives.items() if life.first <= number <= life.last and name in plan.offsets]
        return sum(-(-graph.widths[name] // ALIGNMENT) * ALIGNMENT for name in alive)

    assert plan.floats_per_row <= 1.1 * max(alive_at(number) for number in range(len(graph.ops)))


def broken(graph: Graph, number: int, **changes: object) -> Graph:
    ops = list(graph.ops)
    ops[number] = replace(ops[number], **changes)  # type: ignore[arg-type]
    return replace(graph, ops=tuple(ops))


def test_wrong_graphs_are_named() -> None:
    graph = build_graph(tiny_spec())
    rope = next(i for i, op in enumerate(graph.ops) if isinstance(op, Rope))
    attention = next(i for i, op in enumerate(graph.ops) if isinstance(op, Attention))
    wrong = {
        "before it is written": broken(graph, 1, x="layers.2.mlp.residual"),
        "a second time": broken(graph, 2, out="embedded"),
        "unknown weight 'layers.9.attn.q.weight'": broken(graph, 2, weight="layers.9.attn.q.weight"),
        "which is \\(64, 48\\)": broken(graph, 3, weight="layers.0.attn.q.weight"),
        "into 5 groups": broken(graph, 1, num_groups=5),
        "do not fill the row": broken(graph, rope, num_heads=3),
        "rotates 18 lanes of 16": broken(graph, rope, rope=replace(graph.spec.attention.rope, dim=18)),
        "frequency factors": broken(graph, rope, rope=replace(graph.spec.attention.rope, frequency_factors=(1.0,))),
        "pages of layer 3": broken(graph, attention, layer=3),
        "kv heads do not divide": broken(graph, attention, num_kv_heads=3),
        "window of 0": broken(graph, attention, window=0),
        "no width": replace(graph, widths={**graph.widths, "embedded": 0}),
        "selected rows": replace(
            graph, ops=(*graph.ops, Add("end", "embedded", "selected")), widths={**graph.widths, "end": 48}
        ),
        "output 'nothing'": replace(graph, output="nothing"),
    }
    for message, graph_with_fault in wrong.items():
        with pytest.raises(ConfigError, match=message):
            validate(graph_with_fault)
