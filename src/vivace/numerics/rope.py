"""Rotary frequencies: one row of numbers a RopeSpec, for every executor alike.

The angle of lane pair i at position p is p times its inverse frequency; cosine and sine are multiplied by the attention
factor. A kind of scaling is a row of the table at the end.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ConfigError
from vivace.types.model import RopeScaling, RopeSpec

Frequencies = NDArray[np.float64]


def inverse_frequencies(rope: RopeSpec) -> tuple[Frequencies, float]:
    """The frequencies of a rope, scaling and `frequency_factors` applied.

    Returns:
        (inverse frequencies float64 (dim / 2,) in radians a position, attention factor).

    Su et al. (2021), section 3.2.2: base^(-2i / dim). Linear: position interpolation (Chen et al., 2023). llama3: the
    rule published with Llama 3.1. yarn: YaRN (Peng et al., 2023), section 3.2 (NTK by parts) and 3.3 (attention
    factor).

    Raises:
        ConfigError: a number of the rope is out of its range.
    """
    _check(rope)
    plain = rope.base ** (-np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim)
    factor = 1.0
    if rope.scaling is not None:
        plain, factor = _SCALE[rope.scaling.kind](plain, rope, rope.scaling)
    if rope.frequency_factors is not None:
        plain = plain / np.asarray(rope.frequency_factors, dtype=np.float64)
    return plain, factor


def rope_table(rope: RopeSpec, num_positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of positions 0 .. num_positions - 1, attention factor included.

    Returns:
        (cos, sin), float32 (num_positions, dim / 2), computed in float64 and rounded once.
    """
    frequencies, factor = inverse_frequencies(rope)
    angles = np.arange(num_positions, dtype=np.float64)[:, None] * frequencies
    return (np.cos(angles) * factor).astype(np.float32), (np.sin(angles) * factor).astype(np.float32)


def _check(rope: RopeSpec) -> None:
    rules = [("base", rope.base, rope.base > 1), ("dim", rope.dim, rope.dim > 0 and rope.dim % 2 == 0)]
    if rope.frequency_factors is not None:
        rules.append(("smallest frequency factor", min(rope.frequency_factors), min(rope.frequency_factors) > 0))
    if rope.scaling is not None:
        scaling, context = rope.scaling, rope.scaling.original_context_length
        rules.append(("scaling factor", scaling.factor, scaling.factor > 0))
        rules.append(("original context length", context, context > 0 or scaling.kind == "linear"))
        rules.append(("low_freq_factor", scaling.low_freq_factor, scaling.low_freq_factor < scaling.high_freq_factor))
        rules.append(("beta_slow", scaling.beta_slow, 0 < scaling.beta_slow <= scaling.beta_fast))
    for name, value, holds in rules:
        if not (holds and math.isfinite(value)):
            raise ConfigError(f"The rotary embedding's {name} is {value}.", "Get the model file again; it is damaged.")


def _scale_linear(plain: Frequencies, _rope: RopeSpec, scaling: RopeScaling) -> tuple[Frequencies, float]:
    return plain / scaling.factor, 1.0


def _scale_llama3(plain: Frequencies, _rope: RopeSpec, scaling: RopeScaling) -> tuple[Frequencies, float]:
    """Short waves stay, long waves are stretched by `factor`, and those between are blended."""
    turns = scaling.original_context_length * plain / (2 * math.pi)  # full turns within the trained context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return plain * (kept + (1.0 - kept) / scaling.factor), 1.0


def _scale_yarn(plain: Frequencies, rope: RopeSpec, scaling: RopeScaling) -> tuple[Frequencies, float]:
    """Lanes that turn more than `beta_fast` times are kept, fewer than `beta_slow` stretched, with a ramp between."""

    def lane_that_turns(times: float) -> float:
        context = scaling.original_context_length
        return rope.dim * math.log(context / (times * 2 * math.pi)) / (2 * math.log(rope.base))

    low = max(math.floor(lane_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(lane_that_turns(scaling.beta_slow)), rope.dim - 1)
    width = max(high - low, 0.001)  # a ramp of no width is a step
    stretched = np.clip((np.arange(rope.dim // 2) - low) / width, 0.0, 1.0)
    frequencies = plain * (1.0 - stretched) + plain / scaling.factor * stretched
    if scaling.attention_factor is not None:
        return frequencies, scaling.attention_factor
    return frequencies, 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1.0 else 1.0


_SCALE: dict[str, Callable[[Frequencies, RopeSpec, RopeScaling], tuple[Frequencies, float]]] = {
    "linear": _scale_linear,
    "llama3": _scale_llama3,
    "yarn": _scale_yarn,
}
