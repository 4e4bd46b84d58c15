"""Qwen 3 (Yang et al., 2025): Llama's layer with a norm on every head of queries and keys, and no biases."""

from dataclasses import replace

from vivace.graph.blocks import write_decoder, write_pre_norm_layer
from vivace.graph.graph import Graph
from vivace.types.model import ModelSpec


def build(spec: ModelSpec) -> Graph:
    """Write the op list of a Qwen 3 model; queries and keys always have a norm per head."""
    return write_decoder(replace(spec, attention=replace(spec.attention, qk_norm=True)), write_pre_norm_layer)
