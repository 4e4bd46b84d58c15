"""Qwen 2 and 2.5 (Yang et al., 2024): Llama's layer with biases on queries, keys and values."""

from dataclasses import replace

from vivace.graph.blocks import write_decoder, write_pre_norm_layer
from vivace.graph.graph import Graph
from vivace.types.model import ModelSpec


def build(spec: ModelSpec) -> Graph:
    """Write the op list of a Qwen 2 model; queries, keys and values always have a bias."""
    return write_decoder(replace(spec, attention=replace(spec.attention, qkv_bias=True)), write_pre_norm_layer)
