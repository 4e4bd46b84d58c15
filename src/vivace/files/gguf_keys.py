"""From a `ModelSpec` to the metadata of a GGUF file: the inverse of `gguf_spec.py`, for models that were no GGUF."""

import math

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf_writer import WritableValue
from vivace.numerics.rope import inverse_frequencies
from vivace.types.errors import UnsupportedModelError
from vivace.types.model import ModelSpec, RopeSpec


def spec_metadata(spec: ModelSpec, name: str) -> dict[str, WritableValue]:
    """The keys that say what a model is; `read_gguf_spec` of them gives the spec back.

    Raises:
        UnsupportedModelError: GGUF has no keys for something that the model does.
    """
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
        **_scaling_keys(rope),
    }
    if not math.isclose(attention.scale, attention.head_dim**-0.5, rel_tol=1e-7):
        keys["attention.scale"] = attention.scale
    windows = [window for window in attention.windows if window is not None]
    if windows:
        keys["attention.sliding_window"] = windows[0]
        keys["attention.sliding_window_pattern"] = np.array([window is not None for window in attention.windows])
    if attention.local_rope is not None:
        if attention.local_rope.scaling is not None:
            raise UnsupportedModelError("The model stretches the rope of its local layers.", "GGUF has no key for it.")
        keys["rope.freq_base_swa"] = attention.local_rope.base
    prefixed = {f"{spec.architecture}.{key}": value for key, value in keys.items()}
    return {"general.architecture": spec.architecture, "general.name": name, **prefixed}


def frequency_factors(rope: RopeSpec) -> NDArray[np.float32] | None:
    """What `rope_freqs.weight` has to hold, float32 (dim / 2,); None when it is not needed.

    The llama3 kind of scaling has no keys in GGUF; its converters store the factors that it comes to.
    """
    if rope.scaling is not None and rope.scaling.kind == "llama3":
        plain = rope.base ** (-np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim)
        return (plain / inverse_frequencies(rope)[0]).astype(np.float32)
    return None if rope.frequency_factors is None else np.array(rope.frequency_factors, dtype=np.float32)


def _scaling_keys(rope: RopeSpec) -> dict[str, WritableValue]:
    scaling = rope.scaling
    if scaling is None or scaling.kind == "llama3":
        return {}
    keys: dict[str, WritableValue] = {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
    if scaling.kind == "yarn":
        keys["rope.scaling.original_context_length"] = scaling.original_context_length
        keys["rope.scaling.yarn_beta_fast"] = scaling.beta_fast
        keys["rope.scaling.yarn_beta_slow"] = scaling.beta_slow
        if scaling.attention_factor is not None:
            own = 1.0 + 0.1 * math.log(scaling.factor)
            keys["rope.scaling.yarn_attn_factor"] = scaling.attention_factor / own
    return keys
