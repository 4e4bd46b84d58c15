"""Llama (Touvron et al., 2023) and everything stored as Llama: Llama 2 and 3, SmolLM2, Mistral, TinyLlama."""

from vivace.graph.blocks import write_decoder, write_pre_norm_layer
from vivace.graph.graph import Graph
from vivace.types.model import ModelSpec


def build(spec: ModelSpec) -> Graph:
    """Write the op list of a Llama model: pre-norm layers, rotary attention, gated MLP."""
    return write_decoder(spec, write_pre_norm_layer)
