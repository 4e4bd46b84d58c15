"""Rotary settings of a Hugging Face config.json, in both of the layouts that are about.

Up to transformers 4: `rope_theta`, `rope_scaling`, and for Gemma 3 `rope_local_base_freq`. From 5 on:
`rope_parameters`, either one object or one for each of `full_attention` and `sliding_attention`.
"""

import math
from collections.abc import Callable

from vivace.files.json_object import JsonObject
from vivace.types.errors import UnsupportedModelError
from vivace.types.model import RopeScaling, RopeSpec


def read_ropes(config: JsonObject, head_dim: int, local_base: float | None) -> tuple[RopeSpec, RopeSpec | None]:
    """Read the rotary settings.

    Args:
        config: config.json, or its text part.
        head_dim: lanes of a head.
        local_base: the family's base for layers with a window; None when they rotate as all others do.

    Returns:
        (of layers that attend to everything, of layers with a window or None).

    Raises:
        ModelFileError: a field is missing or of the wrong type.
        UnsupportedModelError: an unknown kind of scaling.
    """
    parameters = config.inner("rope_parameters")
    if parameters.has("full_attention"):
        everywhere = parameters.inner("full_attention")
        local = parameters.inner("sliding_attention")
        rope = _read_rope(config, everywhere, head_dim, config.number("rope_theta", 10_000.0))
        if local_base is None:
            return rope, None
        return rope, _read_rope(config, local, head_dim, local_base)
    settings = parameters if parameters.as_dict() else config.inner("rope_scaling")
    rope = _read_rope(config, settings, head_dim, config.number("rope_theta", 10_000.0))
    if local_base is None:
        return rope, None
    return rope, RopeSpec(config.number("rope_local_base_freq", local_base), rope.dim, interleaved=False)


def _read_rope(config: JsonObject, settings: JsonObject, head_dim: int, default_base: float) -> RopeSpec:
    part = settings.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    if not 0 < part <= 1:
        raise UnsupportedModelError(f"{config.source}: partial_rotary_factor is {part}.", "Choose another model.")
    kind = settings.text("rope_type", settings.text("type", "default"))
    if kind not in _SCALINGS:
        raise UnsupportedModelError(
            f"{settings.source}: the kind of rotary scaling is {kind[:40]!a}.", f"vivace knows {', '.join(_SCALINGS)}."
        )
    return RopeSpec(
        base=settings.number("rope_theta", default_base),
        dim=int(head_dim * part),
        interleaved=False,
        scaling=_SCALINGS[kind](config, settings),
    )


def _original_context(config: JsonObject, settings: JsonObject) -> int:
    key = "original_max_position_embeddings"
    return settings.integer(key, config.integer(key, config.integer("max_position_embeddings")))


def _linear(_config: JsonObject, settings: JsonObject) -> RopeScaling | None:
    factor = settings.number("factor")
    return RopeScaling("linear", factor) if factor != 1.0 else None


def _llama3(config: JsonObject, settings: JsonObject) -> RopeScaling:
    return RopeScaling(
        "llama3",
        settings.number("factor"),
        original_context_length=_original_context(config, settings),
        low_freq_factor=settings.number("low_freq_factor"),
        high_freq_factor=settings.number("high_freq_factor"),
    )


def _yarn(config: JsonObject, settings: JsonObject) -> RopeScaling:
    if not settings.flag("truncate", True):
        raise UnsupportedModelError(f"{settings.source}: YaRN without truncation.", "Choose another model.")
    return RopeScaling(
        "yarn",
        settings.number("factor"),
        original_context_length=_original_context(config, settings),
        beta_fast=settings.number("beta_fast", 32.0),
        beta_slow=settings.number("beta_slow", 1.0),
        attention_factor=_yarn_attention_factor(settings),
    )


def _yarn_attention_factor(settings: JsonObject) -> float | None:
    """A factor of its own, or the ratio of two `mscale`s as DeepSeek writes it; None for YaRN's own."""
    if settings.has("attention_factor"):
        return settings.number("attention_factor")
    if not (settings.has("mscale") and settings.has("mscale_all_dim")):
        return None
    growth = 0.1 * math.log(max(settings.number("factor"), 1.0))
    over, under = (settings.number(key) * growth + 1.0 for key in ("mscale", "mscale_all_dim"))
    return over / under


_SCALINGS: dict[str, Callable[[JsonObject, JsonObject], RopeScaling | None]] = {
    "default": lambda _config, _settings: None,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
