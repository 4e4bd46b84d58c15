"""What each family's op list contains."""

from dataclasses import replace
from typing import TypeVar

import pytest

from factories.tiny_models import ARCHITECTURES, tiny_spec
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.graph.ops import Attention, Embed, GatedActivation, Linear, Op, RmsNorm, Rope, SelectRows
from vivace.graph.passes import validate
from vivace.graph.weights import weight_shapes
from vivace.types.errors import ConfigError, UnsupportedModelError

Kind = TypeVar("Kind", bound=Op)


def ops_of(graph: Graph, kind: type[Kind]) -> list[Kind]:
    return [op for op in graph.ops if isinstance(op, kind)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_family_writes_a_valid_list(architecture: str) -> None:
    graph = build_graph(tiny_spec(architecture))
    validate(graph)
    assert graph.widths[graph.output] == graph.spec.vocab_size


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_selected_before_the_final_norm_and_head(architecture: str) -> None:
    graph = build_graph(tiny_spec(architecture))
    select, norm, head = graph.ops[-3:]
    assert isinstance(select, SelectRows)
    assert isinstance(norm, RmsNorm)
    assert isinstance(head, Linear)
    assert (norm.x, head.x, head.out) == (select.out, norm.out, graph.output)


def test_a_tied_head_reads_the_embedding() -> None:
    spec = tiny_spec("llama")
    assert build_graph(spec).ops[-1].weight == "lm_head.weight"  # type: ignore[union-attr]
    tied = replace(spec, tied_embeddings=True)
    assert build_graph(tied).ops[-1].weight == "embed.weight"  # type: ignore[union-attr]
    assert "lm_head.weight" not in weight_shapes(tied)


def test_weights_of_a_llama_layer() -> None:
    shapes = weight_shapes(tiny_spec("llama"))
    layer = {name.removeprefix("layers.2."): shape for name, shape in shapes.items() if name.startswith("layers.2.")}
    assert layer == {
        "attn_norm.weight": (48,),
        "attn.q.weight": (64, 48),
        "attn.k.weight": (32, 48),
        "attn.v.weight": (32, 48),
        "attn.o.weight": (48, 64),
        "mlp_norm.weight": (48,),
        "mlp.gate.weight": (80, 48),
        "mlp.up.weight": (80, 48),
        "mlp.down.weight": (48, 80),
    }
    outside = {name: shape for name, shape in shapes.items() if not name.startswith("layers.")}
    assert outside == {"embed.weight": (97, 48), "final_norm.weight": (48,), "lm_head.weight": (97, 48)}


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [
        ("qwen2", {"attn.q.bias": (64,), "attn.k.bias": (32,), "attn.v.bias": (32,)}),
        ("qwen3", {"attn.q_norm.weight": (16,), "attn.k_norm.weight": (16,)}),
        (
            "gemma3",
            {
                "attn.q_norm.weight": (16,),
                "attn.k_norm.weight": (16,),
                "attn_post_norm.weight": (48,),
                "mlp_post_norm.weight": (48,),
            },
        ),
    ],
)
def test_what_other_families_add_to_a_llama_layer(architecture: str, extra: dict[str, tuple[int, ...]]) -> None:
    def layer(name: str) -> dict[str, tuple[int, ...]]:
        prefix = "layers.0."
        return {w.removeprefix(prefix): s for w, s in weight_shapes(tiny_spec(name)).items() if w.startswith(prefix)}

    assert layer(architecture) == layer("llama") | extra


def test_gemma_turns_local_layers_by_the_local_rope_and_windows_them() -> None:
    spec = tiny_spec("gemma3", num_layers=6)
    graph = build_graph(spec)
    assert [op.window for op in ops_of(graph, Attention)] == [5, 5, None, 5, 5, None]
    bases = [op.rope.base for op in ops_of(graph, Rope)]
    assert bases == [1e4, 1e4, 1e4, 1e4, 1e6, 1e6] * 2
    assert [op.scale for op in ops_of(graph, Embed)] == [spec.embed_scale]
    assert {op.activation for op in ops_of(graph, GatedActivation)} == {"gelu_tanh"}


def test_per_head_norms_come_before_the_rope() -> None:
    graph = build_graph(tiny_spec("qwen3"))
    norms = {op.out: op for op in ops_of(graph, RmsNorm)}
    groups = [norms[op.x].num_groups for op in ops_of(graph, Rope)]
    assert groups == [4, 2] * 3


def test_an_unknown_family_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"mamba.*gemma3, llama, qwen2, qwen3"):
        build_graph(replace(tiny_spec(), architecture="mamba"))


def test_a_window_for_each_layer_is_asked_for() -> None:
    spec = tiny_spec()
    with pytest.raises(ConfigError, match="3 layers but 1 window"):
        build_graph(replace(spec, attention=replace(spec.attention, windows=(None,))))
