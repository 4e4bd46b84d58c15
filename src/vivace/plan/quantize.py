"""What one number becomes on a grid of few bits: scale, code, what is read back, and the errors. Chapter exercise 3."""

from dataclasses import dataclass

from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class QuantizedValue:
    """One value on a grid.

    Attributes:
        scale: distance of two codes.
        zero_point: the code of 0; 0 on a symmetric grid.
        code: the nearest code.
        restored: what is read back.
        clipped: the value lay outside the range.
    """

    value: float
    scale: float
    zero_point: int
    code: int
    restored: float
    clipped: bool

    @property
    def absolute_error(self) -> float:
        """|restored - value|."""
        return abs(self.restored - self.value)

    @property
    def relative_error(self) -> float | None:
        """The same as a share of the value; None for 0."""
        return None if self.value == 0 else self.absolute_error / abs(self.value)

    @property
    def largest_error(self) -> float:
        """Most that a value inside the range can be off: half a step."""
        return self.scale / 2


def quantize_value(value: float, low: float, high: float, bits: int = 8, *, symmetric: bool = True) -> QuantizedValue:
    """Put a value on the grid that a range gets.

    Args:
        value: the number.
        low: least weight of the layer.
        high: largest weight of the layer.
        bits: code width, 2 to 8.
        symmetric: codes -(2^(b-1) - 1) .. 2^(b-1) - 1 around 0; otherwise 0 .. 2^b - 1 with a whole zero point.

    Raises:
        ConfigError: the range is empty, or bits are out of range.
    """
    if not low < high:
        raise ConfigError(f"The range [{low:g}, {high:g}] is empty.", "Give the least and the largest weight.")
    if not 2 <= bits <= 8:
        raise ConfigError(f"A code of {bits} bits was asked for.", "Choose 2 to 8 bits.")
    if symmetric:
        least, most, zero = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1, 0
        scale = max(abs(low), abs(high)) / most
    else:
        least, most = 0, 2**bits - 1
        low, high = min(low, 0.0), max(high, 0.0)  # 0 must have a code
        scale = (high - low) / most
        zero = round(-low / scale)
    wanted = round(value / scale) + zero
    code = min(max(wanted, least), most)
    return QuantizedValue(value, scale, zero, code, (code - zero) * scale, code != wanted)
