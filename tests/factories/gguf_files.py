"""Tiny GGUF model files with random weights, of every architecture and number format. Same arguments, same bytes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factories.tiny_models import ArrayWeights, random_weights, tiny_spec
from factories.vocabularies import VOCABULARIES
from vivace.files.gguf_writer import TensorToWrite, WritableValue, write_gguf_file
from vivace.numerics.formats import dequantize, quantize
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat

FormatRule = Callable[[str], TensorFormat]

_GLOBAL = {"embed": "token_embd", "final_norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "attn_norm": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "attn.o": "attn_output",
    "attn_post_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
    "mlp_post_norm": "post_ffw_norm",
}


def small_spec(
    architecture: str = "llama",
    *,
    hidden_size: int = 64,
    num_layers: int = 3,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 16,
    ffn_size: int = 96,
    vocab_size: int = 320,
) -> ModelSpec:
    """As `tiny_spec`, in sizes that block formats of 32 divide; ask for 256 and 512 where K formats are wanted."""
    spec = tiny_spec(
        architecture, num_heads=num_heads, num_kv_heads=num_kv_heads, num_layers=num_layers, head_dim=head_dim
    )
    return replace(
        spec,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        ffn_size=ffn_size,
        embed_scale=hidden_size**0.5 if architecture == "gemma3" else 1.0,
    )


def write_gguf(
    path: Path,
    spec: ModelSpec | None = None,
    *,
    format: TensorFormat | FormatRule = TensorFormat.F32,
    seed: int = 0,
    vocabulary: str | None = "gpt2",
    metadata: Mapping[str, WritableValue] | None = None,
    weights: ArrayWeights | None = None,
    alignment: int = 32,
) -> ArrayWeights:
    """Write a model file.

    Args:
        path: the file to make.
        spec: what the model is; a small Llama when left out.
        format: of every matrix, or a function from our tensor name to its format; vectors are F32.
        vocabulary: "gpt2", "llama" or None for a file without a tokenizer.
        metadata: keys to add or replace.
        weights: in vivace's names and the lane order of `spec.attention.rope`; random when left out.

    Returns:
        The weights as a reader must find them: rounded to their formats, under vivace's names.
    """
    spec = spec or small_spec()
    weights = weights or random_weights(spec, seed)
    stored: dict[str, NDArray[np.float32]] = {}
    tensors = []
    for name, values in weights.arrays.items():
        chosen = TensorFormat.F32 if values.ndim == 1 else format if isinstance(format, TensorFormat) else format(name)
        raw = quantize(chosen, values)
        stored[name] = dequantize(chosen, raw, values.shape)
        tensors.append(TensorToWrite(gguf_name(name), values.shape, chosen, lambda raw=raw: raw))
    factors = spec.attention.rope.frequency_factors
    if factors is not None:
        data = np.array(factors, dtype=np.float32)
        tensors.append(TensorToWrite("rope_freqs.weight", data.shape, TensorFormat.F32, lambda: data.view(np.uint8)))
    keys: dict[str, WritableValue] = {**model_metadata(spec)}
    keys |= VOCABULARIES[vocabulary](spec.vocab_size) if vocabulary else {}
    keys |= metadata or {}
    write_gguf_file(path, keys, tensors, alignment)
    return ArrayWeights(stored)


def gguf_name(name: str) -> str:
    """The GGUF name of one of our tensors."""
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{_GLOBAL[stem]}.{kind}"
    _, layer, middle = stem.split(".", 2)
    return f"blk.{layer}.{_LAYER[middle]}.{kind}"


def model_metadata(spec: ModelSpec) -> dict[str, WritableValue]:
    """The keys that say what the model is."""
    attention, rope = spec.attention, spec.attention.rope
    keys: dict[str, WritableValue] = {
        "block_count": spec.num_layers,
        "context_length": spec.context_length,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": spec.ffn_size,
        "attention.head_count": attention.num_heads,
        "attention.head_count_kv": attention.num_kv_heads,
        "attention.key_length": attention.head_dim,
        "attention.value_length": attention.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "rope.freq_base": rope.base,
        "rope.dimension_count": rope.dim,
    }
    windows = [window for window in attention.windows if window is not None]
    if windows:
        keys["attention.sliding_window"] = windows[0]
        keys["attention.sliding_window_pattern"] = np.array([window is not None for window in attention.windows])
    if rope.scaling is not None:
        keys["rope.scaling.type"] = rope.scaling.kind
        keys["rope.scaling.factor"] = rope.scaling.factor
        keys["rope.scaling.original_context_length"] = rope.scaling.original_context_length
    prefixed = {f"{spec.architecture}.{key}": value for key, value in keys.items()}
    return {"general.architecture": spec.architecture, "general.name": f"Tiny {spec.architecture}", **prefixed}
