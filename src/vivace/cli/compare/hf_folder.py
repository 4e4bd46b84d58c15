"""The model as a Hugging Face folder with dequantised weights, for peers that read no GGUF. Plain Llama shapes only."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from vivace.files.open import LoadedModel, open_model
from vivace.types.errors import UnsupportedModelError
from vivace.types.model import ModelSpec

_GLOBAL = {"embed.weight": "model.embed_tokens.weight", "final_norm.weight": "model.norm.weight"}
_MIDDLE = {
    "attn_norm": "input_layernorm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def write_hf_folder(model: Path, folder: Path) -> None:
    """Write config.json and model.safetensors (float16) beside each other.

    Args:
        model: any model file that vivace opens.
        folder: an existing folder.

    Raises:
        UnsupportedModelError: the model is more than a plain Llama.
    """
    loaded = open_model(model)
    try:
        config = llama_config(loaded.spec, loaded)
        tensors = {_hf_name(name): _hf_values(name, loaded) for name in loaded.weights.names()}
    finally:
        loaded.close()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def llama_config(spec: ModelSpec, loaded: LoadedModel) -> dict[str, object]:
    """config.json of a Llama with a spec's numbers.

    Raises:
        UnsupportedModelError: the spec has something a plain Llama has not.
    """
    attention = spec.attention
    plain = spec.architecture == "llama" and attention.rope.scaling is None and attention.rope.frequency_factors is None
    if not plain:
        raise UnsupportedModelError(
            f"{spec.architecture} models are not written as Hugging Face folders.", "Compare the other formats."
        )
    vocabulary = loaded.vocabulary
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
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
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rope.base},
        "hidden_act": "silu",
        "tie_word_embeddings": spec.tied_embeddings,
        "bos_token_id": getattr(vocabulary, "bos_id", None),
        "eos_token_id": getattr(vocabulary, "eos_id", None),
        "torch_dtype": "float16",
    }


def _hf_name(name: str) -> str:
    if name in _GLOBAL:
        return _GLOBAL[name]
    if name == "lm_head.weight":
        return name
    _, layer, *middle, kind = name.split(".")
    return f"model.layers.{layer}.{_MIDDLE['.'.join(middle)]}.{kind}"


def _hf_values(name: str, loaded: LoadedModel) -> NDArray[np.float16]:
    """Query and key rows of each head as two halves, where the file has them as interleaved pairs."""
    values = loaded.weights.dequantize(name)
    attention = loaded.spec.attention
    heads = {"attn.q": attention.num_heads, "attn.k": attention.num_kv_heads}
    middle = ".".join(name.split(".")[2:-1])
    if attention.rope.interleaved and middle in heads:
        half = attention.head_dim // 2
        pairs = values.reshape(heads[middle], half, 2, -1)
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return np.ascontiguousarray(values, dtype=np.float16)
