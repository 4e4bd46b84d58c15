"""From the config.json of a Hugging Face folder to a `ModelSpec`."""

import math

from vivace.files.families import Family, family_of_class, habitual_windows
from vivace.files.hf_rope import read_ropes
from vivace.files.json_object import JsonObject
from vivace.files.layout import MAX_SIZE, check_spec
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.model import Activation, AttentionSpec, ModelSpec

ACTIVATIONS: dict[str, Activation] = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}

# What transformers assumes where a config.json is silent, as far as it differs between the classes we read.
_DEFAULTS: dict[str, dict[str, object]] = {
    "LlamaForCausalLM": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "MistralForCausalLM": {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
        "num_key_value_heads": 8,
    },
    "Qwen2ForCausalLM": {"rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "sliding_window": 4096},
    "Qwen3ForCausalLM": {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "sliding_window": 4096,
        "head_dim": 128,
    },
    "Gemma3ForCausalLM": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
}
_DEFAULTS["Gemma3ForConditionalGeneration"] = _DEFAULTS["Gemma3ForCausalLM"]
_ACTIVATION_KEYS = ("hidden_activation", "hidden_act")
_REFUSED_FLAGS = ("attention_bias", "mlp_bias", "use_bidirectional_attention")
_REFUSED_VALUES = ("attn_logit_softcapping", "final_logit_softcapping")


def read_hf_spec(config: JsonObject, has_lm_head: bool) -> ModelSpec:
    """Work out what the model is.

    Args:
        config: config.json; of a model that also sees, its `text_config` is read.
        has_lm_head: there is a tensor for the output projection.

    Returns:
        The spec; its sizes are possible, but not yet compared with the tensors.

    Raises:
        ModelFileError: a field is missing, of the wrong type or impossible.
        UnsupportedModelError: a class, or a variant of one, that vivace does not run.
    """
    names = config.texts("architectures")
    family = family_of_class(names)
    name = next(name for name in names if name in family.classes)
    text = config.inner("text_config") if config.has("text_config") else config
    text = JsonObject(text.as_dict(), text.source, _DEFAULTS[name])
    _refuse_variants(config, text, family)
    num_layers = text.integer("num_hidden_layers")
    if not 1 <= num_layers <= 1 << 16:
        raise ModelFileError(f"{text.source} claims {num_layers} layers.", "Get the file again.")
    hidden_size = text.integer("hidden_size")
    attention = _read_attention(text, family, name, num_layers)
    spec = ModelSpec(
        architecture=family.architecture,
        vocab_size=text.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=num_layers,
        ffn_size=text.integer("intermediate_size"),
        context_length=_context_length(text, attention),
        norm_eps=text.number("rms_norm_eps"),
        activation=_activation(text, family),
        attention=attention,
        tied_embeddings=text.flag("tie_word_embeddings") or not has_lm_head,
        embed_scale=math.sqrt(max(hidden_size, 1)) if family.scaled_embeddings else 1.0,
    )
    check_spec(spec)
    return spec


def _refuse_variants(config: JsonObject, text: JsonObject, family: Family) -> None:
    flags = [key for key in _REFUSED_FLAGS if text.has(key) and text.flag(key) and not _is_normal(key, family)]
    values = [key for key in _REFUSED_VALUES if config.get(key) or text.get(key)]
    for key in flags + values:
        raise UnsupportedModelError(
            f"{config.source}: vivace does not run models with {key}.", "Choose another variant of the model."
        )


def _is_normal(key: str, family: Family) -> bool:
    return key == "attention_bias" and family.qkv_bias


def _activation(text: JsonObject, family: Family) -> Activation:
    key = next((key for key in _ACTIVATION_KEYS if text.has(key)), None)
    if key is None:
        return family.activation
    if text.text(key) not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"{text.source}: the activation is {text.text(key)[:40]!a}.", f"vivace knows {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[text.text(key)]


def _context_length(text: JsonObject, attention: AttentionSpec) -> int:
    """YaRN settings are often added to a config.json whose own length stays that of training."""
    length = text.integer("max_position_embeddings")
    scaling = attention.rope.scaling
    if scaling is None or scaling.kind != "yarn" or not 1 <= scaling.factor <= MAX_SIZE:
        return length
    return max(length, int(scaling.factor * scaling.original_context_length))


def _read_attention(text: JsonObject, family: Family, name: str, num_layers: int) -> AttentionSpec:
    num_heads = text.integer("num_attention_heads")
    hidden_size = text.integer("hidden_size")
    if num_heads < 1 or hidden_size < 1:
        raise ModelFileError(
            f"{text.source} claims {num_heads} heads and hidden size {hidden_size}.", "Get the file again."
        )
    head_dim = text.integer("head_dim", hidden_size // num_heads)
    windows = _read_windows(text, family, name, num_layers)
    rope, local_rope = read_ropes(text, head_dim, family.local_rope_base)
    query_scalar = text.number("query_pre_attn_scalar", head_dim) if family.local_layers_per_global else head_dim
    return AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=text.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        scale=1.0 / math.sqrt(query_scalar) if query_scalar > 0 else 0.0,
        rope=rope,
        windows=windows,
        local_rope=local_rope if any(windows) else None,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
    )


def _read_windows(text: JsonObject, family: Family, name: str, num_layers: int) -> tuple[int | None, ...]:
    switched_off = name.startswith("Qwen") and not text.flag("use_sliding_window")
    if switched_off or text.is_null("sliding_window") or not text.has("sliding_window"):
        return (None,) * num_layers
    window = text.integer("sliding_window")
    kinds = text.texts("layer_types")
    if not kinds:
        first_local = text.integer("max_window_layers", 28) if name.startswith("Qwen") else 0
        return habitual_windows(window, _period(text, family), num_layers, first_local)
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown or len(kinds) != num_layers:
        raise UnsupportedModelError(
            f"{text.source}: layer_types has {len(kinds)} entries of kinds {', '.join(sorted(set(kinds)))[:200]}.",
            f"vivace knows full_attention and sliding_attention, one for each of {num_layers} layers.",
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _period(text: JsonObject, family: Family) -> int:
    """Every how many layers one attends globally; 0 for never."""
    if not family.local_layers_per_global:
        return 0
    default = text.integer("_sliding_window_pattern", family.local_layers_per_global + 1)
    return text.integer("sliding_window_pattern", default)
