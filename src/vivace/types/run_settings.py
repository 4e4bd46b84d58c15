"""How a model file asks to be run: precision inside quantised layers, and how keys and values are stored."""

from dataclasses import dataclass

DEFAULT_ACTIVATION_BITS = 12
EXACT_BITS = 32
"""Inputs are not rounded and weights are read as float32: what the others are held against."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """None: the file does not say, and the engine's own default holds.

    Attributes:
        activation_bits: 8 or 12, as the native executor takes it.
        kv_format: a name of KV_FORMAT_NAMES.
    """

    activation_bits: int | None = None
    kv_format: str | None = None
