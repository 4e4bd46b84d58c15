"""Tiny Hugging Face checkpoints with random weights: one folder a family and rope kind. Same case, same bytes.

tools/make_golden_tokens.py runs them through transformers; the tests write them anew and compare, without torch.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

VOCAB_SIZE = 199
_SHARED: dict[str, object] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA = {**_SHARED, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
_QWEN2 = {**_SHARED, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu"}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN_ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

CONFIGS: dict[str, dict[str, object]] = {
    "llama-gqa": _LLAMA,
    "llama-mha": {**_LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama-mqa": {**_LLAMA, "num_key_value_heads": 1},
    "llama-linear": {**_LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama-llama3": {**_LLAMA, "rope_theta": 500000.0, "rope_scaling": _LLAMA3_ROPE},
    "mistral-window": {
        **_LLAMA,
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": 24,
    },
    "qwen2": {**_QWEN2, "tie_word_embeddings": True},
    "qwen2-yarn": {**_QWEN2, "rope_scaling": _YARN_ROPE},
    "qwen3": {
        **_SHARED,
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "head_dim": 24,
    },
    "gemma3": {
        **_SHARED,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "num_hidden_layers": 7,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 48,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 20,
        "sliding_window_pattern": 3,
        "tie_word_embeddings": True,
    },
}


def prompts(case: str, lengths: tuple[int, ...] = (1, 17, 100)) -> list[list[int]]:
    """Random prompts for a case: within one KV block, over its edge, and longer than any window."""
    generator = np.random.default_rng(zlib.crc32(f"{case} prompts".encode()))
    return [generator.integers(3, VOCAB_SIZE, length).tolist() for length in lengths]


def write_checkpoint(folder: Path, case: str) -> Path:
    """Write config.json and model.safetensors of a case into `folder`, in Hugging Face's names; returns the folder."""
    config = CONFIGS[case]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generator = np.random.default_rng(zlib.crc32(case.encode()))
    tensors = {name: _values(name, shape, config, generator) for name, shape in _shapes(config).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _values(
    name: str, shape: tuple[int, ...], config: dict[str, object], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Weights that keep activations near unit size, so that every layer matters to the logits."""
    gemma = config["model_type"] == "gemma3_text"
    values = generator.standard_normal(shape)
    if "norm" in name:
        stored_around = 1.0 if not gemma else 1.5 if "post" in name else 0.0  # Gemma stores w - 1
        values = stored_around + 0.2 * values
    elif name.endswith(".bias"):
        values = 0.5 * values
    elif "embed_tokens" in name:
        values = (0.06 if gemma else 0.3) * values  # Gemma multiplies embeddings by sqrt(hidden_size)
    else:
        values = 1.5 * values / np.sqrt(shape[-1])
    return values.astype(np.float32)


def _shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    numbers = {key: value for key, value in config.items() if isinstance(value, int)}
    hidden, vocab = numbers["hidden_size"], numbers["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(numbers["num_hidden_layers"]):
        for name, shape in _layer_shapes(config, numbers).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer_shapes(config: dict[str, object], numbers: dict[str, int]) -> dict[str, tuple[int, ...]]:
    hidden, ffn = numbers["hidden_size"], numbers["intermediate_size"]
    head_dim = numbers.get("head_dim", hidden // numbers["num_attention_heads"])
    heads, kv_heads = numbers["num_attention_heads"] * head_dim, numbers["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (heads, hidden),
        "self_attn.k_proj.weight": (kv_heads, hidden),
        "self_attn.v_proj.weight": (kv_heads, hidden),
        "self_attn.o_proj.weight": (hidden, heads),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    family = config["model_type"]
    if family == "qwen2":
        shapes |= {f"self_attn.{part}_proj.bias": (heads if part == "q" else kv_heads,) for part in "qkv"}
    if family in ("qwen3", "gemma3_text"):
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    if family == "gemma3_text":
        shapes |= {"pre_feedforward_layernorm.weight": (hidden,), "post_feedforward_layernorm.weight": (hidden,)}
    return shapes
