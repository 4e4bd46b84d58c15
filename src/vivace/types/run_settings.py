"""How a model file asks to be run: precision inside quantised layers, and how keys and values are stored."""

from dataclasses import dataclass

from vivace.types.errors import ConfigError
from vivace.types.input_scheme import PLAIN_INPUTS, InputScheme

DEFAULT_ACTIVATION_BITS = 12
FAST_BITS = 8
EXACT_BITS = 32
"""Inputs are not rounded and weights are read as float32: what the others are held against."""

WEIGHT_FORMATS = ("file", "int8")
"""How linears run: in the file's own codes, or requantised at load to eight bits, turned (numerics/turned.py)."""
FILE_WEIGHTS, INT8_WEIGHTS = WEIGHT_FORMATS


@dataclass(frozen=True, slots=True)
class RunSettings:
    """None: the file does not say, and the engine's own default holds.

    Attributes:
        activation_bits: 2 to 8 or 12, as the native executor takes it.
        kv_format: a name of KV_FORMAT_NAMES.
        inputs: what the codes of inputs span; of no account without activation_bits.
    """

    activation_bits: int | None = None
    kv_format: str | None = None
    inputs: InputScheme = PLAIN_INPUTS


def check_weight_format(name: str) -> None:
    """Refuse a name that WEIGHT_FORMATS does not have.

    Raises:
        ConfigError: it does not.
    """
    if name not in WEIGHT_FORMATS:
        raise ConfigError(f"There is no weight format {name!r}.", f"Known are {', '.join(WEIGHT_FORMATS)}.")


def choose_inputs(asked: RunSettings, bits: int | None) -> tuple[int, InputScheme]:
    """Bits of inputs and what their codes span: what a file asks for; bits that somebody gives win over all of it."""
    if bits is not None or asked.activation_bits is None:
        return bits or DEFAULT_ACTIVATION_BITS, PLAIN_INPUTS
    return asked.activation_bits, asked.inputs
