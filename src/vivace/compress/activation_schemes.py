"""How activations may be quantised, as data, and which of those ways a kernel of the native core runs.

A recipe's `activations` is a row of fields here. What has no row of KERNELS can be simulated (`activations.py`) and is
never written into a file, so that nothing is promised that the engine does not do.
"""

from dataclasses import dataclass, replace

from vivace.compress.observers import OBSERVERS
from vivace.types.errors import ConfigError

MODES = ("dynamic", "static")
GRANULARITIES = ("tensor", "token", "group")
GROUP = 32


@dataclass(frozen=True, slots=True)
class ActivationScheme:
    """How inputs of linears are quantised.

    Attributes:
        bits: code width, 2 to 8, or 12.
        mode: "dynamic": scales from the values at hand; "static": from calibration, one a tensor.
        granularity: what shares a dynamic scale: the whole "tensor" (a step's rows), a "token" (row), or a "group"
            of 32 columns of a row.
        symmetric: zero point 0; otherwise a whole zero point, so that 0 is met exactly.
        observer: a name of OBSERVERS, for static ranges.
        clip: dynamic ranges are multiplied by it: activation clipping (chapter 18.2.4); 1 clips nothing.

    Raises:
        ConfigError: a value is out of range, or static scales are to be anything but a tensor's.
    """

    bits: int = 8
    mode: str = "dynamic"
    granularity: str = "group"
    symmetric: bool = True
    observer: str = "minmax"
    clip: float = 1.0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("mode", self.mode, MODES),
            ("granularity", self.granularity, GRANULARITIES),
            ("observer", self.observer, tuple(OBSERVERS)),
        ):
            if value not in known:
                raise ConfigError(f"Activations have the {what} {value!r}.", f"Choose one of {', '.join(known)}.")
        if not (2 <= self.bits <= 8 or self.bits == 12) or not 0.1 <= self.clip <= 1.0:
            raise ConfigError(
                f"Activations of {self.bits} bits, clipped at {self.clip}.", "Use 2 to 8 bits or 12, and 0.1 to 1."
            )
        if self.mode == "static" and self.granularity != "tensor":
            raise ConfigError("Static scales are one a tensor.", "Set granularity: tensor, or mode: dynamic.")

    @property
    def name(self) -> str:
        """For tables: static-percentile-8, dynamic-token-8 ..."""
        detail = self.observer if self.mode == "static" else self.granularity
        side = "" if self.symmetric else "-asymmetric"
        return f"{self.mode}-{detail}-{self.bits}{side}" + ("" if self.clip == 1 else f"-clip{self.clip:g}")


@dataclass(frozen=True, slots=True)
class ActivationKernel:
    """A way that the native core runs: its scheme, the engine's setting, and the functions that compute it."""

    scheme: ActivationScheme
    activation_bits: int
    kernel: str


DEPLOYED = ActivationScheme()
"""The 8-bit scheme that the native core runs."""
KERNELS = (
    ActivationKernel(DEPLOYED, 8, "quantize (8 bits), dot products of bytes"),
    ActivationKernel(replace(DEPLOYED, bits=12), 12, "quantize (12 bits), dot products of two bytes"),
)


def find_kernel(scheme: ActivationScheme) -> ActivationKernel:
    """What runs a scheme here.

    Raises:
        ConfigError: nothing does; the message says what it can be replaced by.
    """
    plain = replace(scheme, observer=DEPLOYED.observer) if scheme.mode == "dynamic" else scheme
    for row in KERNELS:
        if row.scheme == plain:
            return row
    raise ConfigError(
        f"No kernel runs activations of the scheme {scheme.name}.",
        "Files take dynamic, symmetric groups of 8 or 12 bits without clip; try others by --simulate TEXT.",
    )
