"""How inputs of quantised linears are rounded where a model file asks for more than a number of bits.

By itself the engine gives every group of 32 columns of a row a scale of its own, from its own largest magnitude. A file
may ask for one scale a row, for ranges that calibration has found, for clipped ranges or for a zero point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vivace.types.errors import ConfigError, ModelFileError

GROUP, TOKEN, TENSOR = "group", "token", "tensor"
KERNEL_GRANULARITIES = (GROUP, TOKEN, TENSOR)
FEWEST_BITS, COARSE_BITS, FINE_BITS = 2, 8, 12


class InputGrid(NamedTuple):
    """What codes of one buffer's rows span.

    Attributes:
        top: the largest code of rows in bytes; rows of 12 bits have their own.
        clip: the share of a dynamic range that is kept.
        by_row: one scale a row; otherwise one a group of 32 columns.
        is_fixed: `low` and `high` are the range, whatever the values are.
        is_shifted: x = scale * code + shift, for a range that is not as far on both sides.
        low: of a fixed range, at most 0.
        high: of a fixed range, at least 0.
    """

    top: float
    clip: float = 1.0
    by_row: bool = False
    is_fixed: bool = False
    is_shifted: bool = False
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class InputScheme:
    """How inputs are rounded; without arguments, as the engine does by itself.

    Attributes:
        granularity: what shares a scale: a "group" of 32 columns of a row or a "token" (row), by the values at hand;
            or the "tensor", by ranges that calibration has found.
        symmetric: codes reach as far on both sides of 0; otherwise a row or tensor has a whole zero point.
        clips: of dynamic ranges, by buffer: the share that is kept; all of those that are not named.
        ranges: of a tensor, by buffer: (low, high), low <= 0 <= high.

    Raises:
        ConfigError: values that no kernel runs.
    """

    granularity: str = GROUP
    symmetric: bool = True
    clips: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.granularity not in KERNEL_GRANULARITIES:
            raise ConfigError(
                f"Inputs have one scale a {self.granularity[:40]!a}.", f"Known are {', '.join(KERNEL_GRANULARITIES)}."
            )
        if self.granularity == GROUP and not self.symmetric:
            raise ConfigError(
                "No kernel gives each group of 32 inputs a zero point.",
                "It would need the sums of all weights by groups; ask for granularity token or tensor.",
            )
        if any(not 0 < clip <= 1 for clip in self.clips.values()):
            raise ConfigError("A clip keeps no share of a range.", "Use more than 0, up to 1.")
        if any(not -_FARTHEST < low <= 0 <= high < _FARTHEST for low, high in self.ranges.values()):
            raise ConfigError("A range of inputs does not hold 0, or has no end.", "Make the model file again.")

    def grid(self, buffer: str, bits: int) -> InputGrid | None:
        """What codes of a buffer span; None: as the engine does by itself.

        Args:
            buffer: its name in the op list.
            bits: 2 to 8, or 12.

        Raises:
            ModelFileError: one scale a tensor, and no range is known of this one.
        """
        top = float((1 << (min(bits, COARSE_BITS) - 1)) - 1)
        if self.granularity == TENSOR:
            if buffer not in self.ranges:
                raise ModelFileError(f"The file has no range of the inputs {buffer}.", "Make the file again.")
            low, high = self.ranges[buffer]
            return InputGrid(top, 1.0, True, True, not self.symmetric, low, high)
        clip, by_row = self.clips.get(buffer, 1.0), self.granularity == TOKEN
        if not by_row and clip == 1 and bits in (COARSE_BITS, FINE_BITS):
            return None
        return InputGrid(top, clip, by_row, is_shifted=not self.symmetric)


_FARTHEST = 3e38
PLAIN_INPUTS = InputScheme()
"""Groups of 32 columns, whole ranges: what the engine does by itself."""


def is_input_bits(bits: int) -> bool:
    """Whether kernels have codes of so many bits: 2 to 8 in bytes, or 12."""
    return FEWEST_BITS <= bits <= COARSE_BITS or bits == FINE_BITS
