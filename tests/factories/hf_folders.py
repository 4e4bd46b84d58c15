"""Tiny Hugging Face folders with a tokenizer: any family, format and number of shards. Same arguments, same bytes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factories.gguf_files import small_spec
from factories.tiny_models import ArrayWeights, random_weights
from factories.vocabularies import CHAT_TEMPLATE, tokenizer_json
from vivace.numerics.formats import dequantize, quantize
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat

CLASSES = {
    "llama": "LlamaForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_GLOBAL = {"embed": "model.embed_tokens", "final_norm": "model.norm", "lm_head": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "attn.o": "self_attn.o_proj",
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def hf_spec(architecture: str = "llama", **sizes: int) -> ModelSpec:
    """As `small_spec`, with the lane order of Hugging Face checkpoints."""
    spec = small_spec(architecture, **sizes)
    rope = replace(spec.attention.rope, interleaved=False)
    return replace(spec, attention=replace(spec.attention, rope=rope))


def write_hf_folder(
    folder: Path,
    spec: ModelSpec | None = None,
    *,
    format: TensorFormat = TensorFormat.F32,
    shards: int = 1,
    seed: int = 0,
    config: Mapping[str, object] | None = None,
    weights: ArrayWeights | None = None,
) -> ArrayWeights:
    """Write a folder.

    Args:
        folder: where to; made if it is missing.
        spec: what the model is, its rope not interleaved; a small Llama when left out.
        format: F32, F16 or BF16, of every tensor.
        shards: number of safetensors files; more than one come with an index.
        config: fields to add to config.json or to replace; None removes a field.
        weights: in vivace's names; random when left out.

    Returns:
        The weights as a reader must find them: rounded to the format, under vivace's names.
    """
    spec = spec or hf_spec()
    weights = weights or random_weights(spec, seed)
    offset = np.float32(1.0 if spec.architecture == "gemma3" else 0.0)
    tensors: dict[str, tuple[tuple[int, ...], NDArray[np.uint8]]] = {}
    stored: dict[str, NDArray[np.float32]] = {}
    for name, values in weights.arrays.items():
        shift = offset if name.endswith("norm.weight") else np.float32(0.0)
        raw = quantize(format, values - shift)
        tensors[hf_name(name, spec.architecture)] = values.shape, raw
        stored[name] = dequantize(format, raw, values.shape) + shift
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder, tensors, format, shards)
    fields = {**model_config(spec), **(config or {})}
    _write_json(folder / "config.json", {key: value for key, value in fields.items() if value is not None})
    _write_json(folder / "generation_config.json", {"eos_token_id": [1, 3]})
    _write_json(folder / "tokenizer_config.json", {"chat_template": CHAT_TEMPLATE, "bos_token": "<|begin|>"})
    if spec.vocab_size > 260:
        (folder / "tokenizer.json").write_text(tokenizer_json(spec.vocab_size), encoding="utf-8")
    return ArrayWeights(stored)


def hf_name(name: str, architecture: str) -> str:
    """The Hugging Face name of one of our tensors."""
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{_GLOBAL[stem]}.{kind}"
    _, layer, middle = stem.split(".", 2)
    theirs = "pre_feedforward_layernorm" if (middle, architecture) == ("mlp_norm", "gemma3") else _LAYER[middle]
    return f"model.layers.{layer}.{theirs}.{kind}"


def model_config(spec: ModelSpec) -> dict[str, object]:
    """The fields of config.json that say what the model is, in the layout of transformers 4."""
    attention = spec.attention
    windows = [window for window in attention.windows if window is not None]
    kinds = ["full_attention" if window is None else "sliding_attention" for window in attention.windows]
    return {
        "architectures": [CLASSES[spec.architecture]],
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.ffn_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": attention.rope.base,
        "query_pre_attn_scalar": attention.scale**-2,
        "sliding_window": windows[0] if windows else None,
        "layer_types": kinds if windows else None,
        "tie_word_embeddings": spec.tied_embeddings,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def _write_tensors(
    folder: Path, tensors: Mapping[str, tuple[tuple[int, ...], NDArray[np.uint8]]], format: TensorFormat, shards: int
) -> None:
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors, format))
        return
    weight_map = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        names = list(tensors)[shard::shards]
        (folder / file_name).write_bytes(safetensors_bytes({name: tensors[name] for name in names}, format))
        weight_map |= dict.fromkeys(names, file_name)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def safetensors_bytes(tensors: Mapping[str, tuple[tuple[int, ...], NDArray[np.uint8]]], format: TensorFormat) -> bytes:
    """A safetensors file of tensors that are all of one format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (shape, raw) in tensors.items():
        header[name] = {"dtype": format.value, "shape": shape, "data_offsets": [position, position + raw.size]}
        position += raw.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(raw.tobytes() for _, raw in tensors.values())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
