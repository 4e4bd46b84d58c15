"""Gemma 3 (Gemma Team, 2025): norms before and after each block, per-head norms, local layers with a rope of their own.

Windows, the local rope, the embedding scale and the tanh GELU all come from the ModelSpec.
"""

from dataclasses import replace

from vivace.graph.blocks import write_attention, write_decoder, write_gated_mlp
from vivace.graph.builder import GraphBuilder
from vivace.graph.graph import Graph
from vivace.types.model import ModelSpec


def build(spec: ModelSpec) -> Graph:
    """Write the op list of a Gemma 3 model; queries and keys always have a norm per head."""
    return write_decoder(replace(spec, attention=replace(spec.attention, qk_norm=True)), _write_layer)


def _write_layer(builder: GraphBuilder, layer: int, x: str) -> str:
    mixed = write_attention(builder, layer, builder.rms_norm(x, "attn_norm"))
    x = builder.add(x, builder.rms_norm(mixed, "attn_post_norm"), "attn.residual")
    changed = write_gated_mlp(builder, builder.rms_norm(x, "mlp_norm"))
    return builder.add(x, builder.rms_norm(changed, "mlp_post_norm"), "mlp.residual")
