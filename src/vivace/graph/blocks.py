"""The pieces that decoder architectures are put together from: attention, gated MLP, the head.

What differs between families inside a piece (biases, per-head norms, windows, local rope) is read from the ModelSpec;
how the pieces are wired is the architecture's own file.
"""

from collections.abc import Callable

from vivace.graph.builder import GraphBuilder
from vivace.graph.graph import Graph
from vivace.types.model import ModelSpec, RopeSpec

WriteLayer = Callable[[GraphBuilder, int, str], str]
"""Writes one layer: (builder, layer number, input buffer) -> output buffer."""


def write_decoder(spec: ModelSpec, write_layer: WriteLayer) -> Graph:
    """A whole decoder: embedding, `spec.num_layers` layers written by `write_layer`, head."""
    builder = GraphBuilder(spec)
    x = builder.embed()
    for layer in range(spec.num_layers):
        builder.scope = f"layers.{layer}."
        x = write_layer(builder, layer, x)
    builder.scope = ""
    return builder.finish(write_head(builder, x))


def write_pre_norm_layer(builder: GraphBuilder, layer: int, x: str) -> str:
    """x + attention(norm(x)), then y + mlp(norm(y)): the layer of Llama, Mistral and Qwen."""
    mixed = write_attention(builder, layer, builder.rms_norm(x, "attn_norm"))
    x = builder.add(x, mixed, "attn.residual")
    changed = write_gated_mlp(builder, builder.rms_norm(x, "mlp_norm"))
    return builder.add(x, changed, "mlp.residual")


def write_attention(builder: GraphBuilder, layer: int, x: str) -> str:
    """Multi-head, grouped-query or multi-query self-attention of x, output projection included."""
    spec = builder.spec.attention
    rope = _rope_of_layer(builder.spec, layer)
    q = builder.linear(x, "attn.q", spec.num_heads * spec.head_dim, bias=spec.qkv_bias)
    k = builder.linear(x, "attn.k", spec.num_kv_heads * spec.head_dim, bias=spec.qkv_bias)
    v = builder.linear(x, "attn.v", spec.num_kv_heads * spec.head_dim, bias=spec.qkv_bias)
    if spec.qk_norm:
        q = builder.rms_norm(q, "attn.q_norm", spec.num_heads)
        k = builder.rms_norm(k, "attn.k_norm", spec.num_kv_heads)
    q = builder.rope(q, "attn.q", spec.num_heads, rope)
    k = builder.rope(k, "attn.k", spec.num_kv_heads, rope)
    mixed = builder.attention(q, k, v, layer)
    return builder.linear(mixed, "attn.o", builder.spec.hidden_size)


def write_gated_mlp(builder: GraphBuilder, x: str) -> str:
    """down(activation(gate(x)) * up(x))."""
    gate = builder.linear(x, "mlp.gate", builder.spec.ffn_size)
    up = builder.linear(x, "mlp.up", builder.spec.ffn_size)
    return builder.linear(builder.gated_activation(gate, up), "mlp.down", builder.spec.hidden_size)


def write_head(builder: GraphBuilder, x: str) -> str:
    """Logits of the wanted rows; rows are selected first, so that the others pay for no norm and no head."""
    return builder.logits(builder.rms_norm(builder.select_rows(x), "final_norm"))


def _rope_of_layer(spec: ModelSpec, layer: int) -> RopeSpec:
    attention = spec.attention
    if attention.windows[layer] is not None and attention.local_rope is not None:
        return attention.local_rope
    return attention.rope
