"""A GGUF file as a Hugging Face model in FP32 and as a float32 copy that llama.cpp runs: two readings to compare.

Tensors are mapped here and not by transformers, whose own GGUF loader misreads Gemma 3. Needs torch, transformers and
gguf; `LlamaCpp` needs xllamacpp. Used by make_golden_tokens.py only.
"""

import json
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

GGUF_TO_HF = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS_TO_HF = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


def load_gguf(path: Path) -> Any:
    """A Hugging Face model in FP32 over the dequantised tensors of a GGUF file, mapped here and not by transformers."""
    reader = gguf.GGUFReader(path)
    family = read_key(reader, "general.architecture")
    config = CONFIGS[family](reader, family)
    state = {}
    for tensor in reader.tensors:
        name = hf_name(tensor.name, family)
        array = dequantized(tensor)
        if family == "gemma3" and "norm" in name:
            array = array - 1  # the file stores w as it multiplies, transformers adds 1
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = unpermute(array, heads)
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


def read_key(reader: Any, key: str) -> Any:
    """A metadata value of a GGUF file."""
    return reader.fields[key].contents()


def common_numbers(reader: Any, family: str) -> dict[str, object]:
    """The settings that both families store under the same keys."""
    keys = {
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    numbers = {ours: read_key(reader, f"{family}.{key}") for ours, key in keys.items()}
    return {**numbers, "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].data), "tie_word_embeddings": True}


def llama_config(reader: Any, family: str) -> LlamaConfig:
    """Settings of a Llama file."""
    rope = {"rope_type": "default", "rope_theta": read_key(reader, "llama.rope.freq_base")}
    return LlamaConfig(**common_numbers(reader, family), rope_parameters=rope)


def gemma3_config(reader: Any, family: str) -> Gemma3TextConfig:
    """Settings of a Gemma 3 file: the local rope base and the pattern of five to one are not stored, but fixed."""
    head_dim = read_key(reader, "gemma3.attention.key_length")
    return Gemma3TextConfig(
        **common_numbers(reader, family),
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        sliding_window=read_key(reader, "gemma3.attention.sliding_window"),
        sliding_window_pattern=6,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": read_key(reader, "gemma3.rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )


CONFIGS = {"llama": llama_config, "gemma3": gemma3_config}


def hf_name(name: str, family: str) -> str:
    """Hugging Face's name of a GGUF tensor."""
    outer = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in outer:
        return outer[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{ {**GGUF_TO_HF, **NORMS_TO_HF[family]}[part] }.{kind}"


def unpermute(array: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of each head from GGUF's interleaved pairs back to Hugging Face's two halves."""
    pairs = array.reshape(num_heads, array.shape[0] // num_heads // 2, 2, array.shape[1])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def write_float32_copy(source: Path, target: Path) -> None:
    """Write a GGUF file with the same settings and every tensor dequantised, so that llama.cpp computes in float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, read_key(reader, "general.architecture"))
    for key, value in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        sub_type = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value.contents(), value.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantized(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantized(tensor: Any) -> np.ndarray:
    """A tensor of a GGUF file in float32, row-major."""
    array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return array.reshape(tuple(int(n) for n in reversed(tensor.shape)))


class LlamaCpp:
    """llama.cpp on one file, asked over its own HTTP interface; keys and values in float32."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 1024, 1, 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup, params.verbosity = False, 0
        self._server = xllamacpp.Server(params)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, special tokens parsed, BOS in front where the model wants one."""
        answer = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(token) for token in answer["tokens"]]

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """Greedy continuation; ends after a token that ends the answer."""
        settings = {"n_predict": num_tokens, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        answer = self._post("/completion", {"prompt": prompt, **settings})
        return [int(token) for token in answer["tokens"]]

    def _post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._server.listening_address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
