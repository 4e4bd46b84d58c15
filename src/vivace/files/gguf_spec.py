"""From the metadata of a GGUF file to a `ModelSpec`.

Key names: docs/gguf.md in the ggml repository; what each architecture does with them follows llama.cpp, so that a file
means here what its maker tested there.
"""

import math

import numpy as np

from vivace.files.families import Family, family_of_architecture, habitual_windows
from vivace.files.gguf import GgufTensor
from vivace.files.gguf_metadata import GgufMetadata
from vivace.files.gguf_values import MetadataValue
from vivace.files.layout import check_spec
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.model import AttentionSpec, ModelSpec, RopeScaling, RopeSpec

GEMMA3_27B_LAYERS = 62  # the only Gemma 3 whose query scale is 1 / sqrt(hidden / heads)


def read_gguf_spec(
    values: dict[str, MetadataValue],
    tensors: dict[str, GgufTensor],
    frequency_factors: tuple[float, ...] | None,
) -> ModelSpec:
    """Work out what the model is.

    Args:
        values: metadata of the (first part of the) file.
        tensors: directory of all parts.
        frequency_factors: values of the tensor `rope_freqs.weight`, if there is one.

    Returns:
        The spec; its sizes are possible, but not yet compared with the tensors.

    Raises:
        ModelFileError: a key is missing, of the wrong type or impossible.
        UnsupportedModelError: the architecture, or a variant of it, is not one vivace runs.
    """
    architecture = GgufMetadata(values).text("general.architecture")
    family = family_of_architecture(architecture)
    metadata = GgufMetadata(values, architecture)
    _refuse_variants(metadata)
    num_layers = metadata.integer("{arch}.block_count")
    if not 1 <= num_layers <= len(tensors):
        raise ModelFileError(
            f"The model claims {num_layers} layers, but has {len(tensors)} tensors.", "Get the file again."
        )
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelFileError("The model file lacks the tensor token_embd.weight.", "It is incomplete; get it again.")
    hidden_size = metadata.integer("{arch}.embedding_length")
    spec = ModelSpec(
        architecture=family.architecture,
        vocab_size=embedding.shape[0],
        hidden_size=hidden_size,
        num_layers=num_layers,
        ffn_size=metadata.integer("{arch}.feed_forward_length"),
        context_length=metadata.integer("{arch}.context_length"),
        norm_eps=metadata.number("{arch}.attention.layer_norm_rms_epsilon"),
        activation=family.activation,
        attention=_read_attention(metadata, family, num_layers, "blk.0.attn_q.bias" in tensors, frequency_factors),
        tied_embeddings="output.weight" not in tensors,
        embed_scale=math.sqrt(max(hidden_size, 1)) if family.scaled_embeddings else 1.0,
    )
    check_spec(spec)
    return spec


def _refuse_variants(metadata: GgufMetadata) -> None:
    if metadata.integer("{arch}.expert_count", 0):
        raise UnsupportedModelError("The model is a mixture of experts.", "Choose a dense model.")
    for key in ("{arch}.attn_logit_softcapping", "{arch}.final_logit_softcapping"):
        if metadata.has(key) and metadata.number(key):
            raise UnsupportedModelError("The model caps its logits.", "Choose a model without soft-capping.")


def _read_attention(
    metadata: GgufMetadata,
    family: Family,
    num_layers: int,
    has_bias: bool,
    frequency_factors: tuple[float, ...] | None,
) -> AttentionSpec:
    num_heads = metadata.integer("{arch}.attention.head_count")
    hidden_size = metadata.integer("{arch}.embedding_length")
    if num_heads < 1 or hidden_size < 1:
        raise ModelFileError(f"The model has {num_heads} heads and hidden size {hidden_size}.", "Get the file again.")
    head_dim = metadata.integer("{arch}.attention.key_length", hidden_size // num_heads)
    if metadata.integer("{arch}.attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError("The model's keys and values differ in size.", "Choose another model.")
    windows = _read_windows(metadata, family, num_layers)
    rope = RopeSpec(
        base=metadata.number("{arch}.rope.freq_base", 10_000.0),
        dim=metadata.integer("{arch}.rope.dimension_count", head_dim),
        interleaved=family.gguf_interleaved_rope,
        scaling=_read_scaling(metadata),
        frequency_factors=frequency_factors,
    )
    if frequency_factors is not None and len(frequency_factors) != rope.dim // 2:
        raise ModelFileError(
            f"The tensor rope_freqs.weight has {len(frequency_factors)} values for {rope.dim} rotated lanes.",
            "Get the file again.",
        )
    return AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=metadata.integer("{arch}.attention.head_count_kv", num_heads),
        head_dim=head_dim,
        scale=_read_scale(metadata, num_layers, head_dim),
        rope=rope,
        windows=windows,
        local_rope=_read_local_rope(metadata, family, rope) if any(windows) else None,
        qkv_bias=family.qkv_bias or has_bias,
        qk_norm=family.qk_norm,
    )


def _read_scale(metadata: GgufMetadata, num_layers: int, head_dim: int) -> float:
    if metadata.has("{arch}.attention.scale"):
        return metadata.number("{arch}.attention.scale")
    if metadata.has("gemma3.block_count") and num_layers == GEMMA3_27B_LAYERS:
        return math.sqrt(metadata.integer("{arch}.attention.head_count") / metadata.integer("{arch}.embedding_length"))
    return 1.0 / math.sqrt(max(head_dim, 1))


def _read_windows(metadata: GgufMetadata, family: Family, num_layers: int) -> tuple[int | None, ...]:
    """One entry a layer. Without a pattern of its own, a family's habit decides which layers are local."""
    if not metadata.has("{arch}.attention.sliding_window"):
        return (None,) * num_layers
    window = metadata.integer("{arch}.attention.sliding_window")
    if window == 0:
        return (None,) * num_layers
    key = "{arch}.attention.sliding_window_pattern"
    if metadata.is_array(key):
        flags = metadata.numbers(key)
        if len(flags) < num_layers:
            raise ModelFileError("The sliding window pattern is shorter than the model.", "Get the file again.")
        return tuple(window if flag else None for flag in flags[:num_layers].tolist())
    period = metadata.integer(key, family.local_layers_per_global + 1 if family.local_layers_per_global else 0)
    return habitual_windows(window, period, num_layers)


def _read_local_rope(metadata: GgufMetadata, family: Family, rope: RopeSpec) -> RopeSpec | None:
    if family.local_rope_base is None:
        return None
    base = metadata.number("{arch}.rope.freq_base_swa", family.local_rope_base)
    return RopeSpec(base=base, dim=rope.dim, interleaved=rope.interleaved)


def _read_scaling(metadata: GgufMetadata) -> RopeScaling | None:
    old_factor = metadata.number("{arch}.rope.scale_linear", 1.0)
    factor = metadata.number("{arch}.rope.scaling.factor", old_factor)
    kind = metadata.text("{arch}.rope.scaling.type", "linear" if factor != 1.0 else "none")
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return None
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "yarn":
        raise UnsupportedModelError(
            f"The model stretches its rotary embedding by {kind[:40]!a}.", "vivace knows linear, llama3 and yarn."
        )
    prefix = "{arch}.rope.scaling."
    return RopeScaling(
        "yarn",
        factor,
        original_context_length=metadata.integer(
            prefix + "original_context_length", metadata.integer("{arch}.context_length")
        ),
        beta_fast=metadata.number(prefix + "yarn_beta_fast", 32.0),
        beta_slow=metadata.number(prefix + "yarn_beta_slow", 1.0),
        attention_factor=_yarn_attention_factor(metadata, factor),
    )


def _yarn_attention_factor(metadata: GgufMetadata, factor: float) -> float | None:
    """GGUF's factor multiplies YaRN's own 1 + 0.1 ln(factor); a spec's replaces it (None: YaRN's own)."""
    key = "{arch}.rope.scaling."
    extra = metadata.number(key + "yarn_attn_factor", metadata.number(key + "attn_factor", 1.0))
    if extra == 1.0 or not factor > 0:
        return None
    return float(np.float32(extra * (1.0 + 0.1 * math.log(factor))))
