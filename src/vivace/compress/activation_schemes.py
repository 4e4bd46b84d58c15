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
        symmetric: zero point 0; otherwise a whole zero point, so that 0 is met exactly, and as many steps.
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
    """How the native core runs a kind of scheme; `kernel` is for people."""

    kernel: str
    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 12)


_BYTES = (2, 3, 4, 5, 6, 7, 8)
KERNELS = {
    ("dynamic", "group", True): ActivationKernel("one scale a group"),
    ("dynamic", "token", True): ActivationKernel("one scale a row, written for every group"),
    ("dynamic", "token", False): ActivationKernel("one scale and shift a row, sums of weights added", _BYTES),
    ("static", "tensor", True): ActivationKernel("the file's scale, written for every group"),
    ("static", "tensor", False): ActivationKernel("the file's scale and shift, sums of weights added", _BYTES),
}
"""By mode, granularity and symmetry: kernels/grids.inc, then the same products of bytes as ever."""
REFUSED = {
    ("dynamic", "tensor", True): "a scale found over a whole step would change with the rows that share it",
    ("dynamic", "tensor", False): "a scale found over a whole step would change with the rows that share it",
    ("dynamic", "group", False): "zero points of groups would need the sums of all weights by groups",
}
"""Why the others have none."""
DEPLOYED = ActivationScheme()
"""What `w8a8` and `w4a8` ask for."""


def find_kernel(scheme: ActivationScheme) -> ActivationKernel:
    """What runs a scheme here.

    Raises:
        ConfigError: nothing does; the message says why.
    """
    kind = (scheme.mode, scheme.granularity, scheme.symmetric)
    if kind in REFUSED:
        why = REFUSED[kind]
    elif scheme.bits not in KERNELS[kind].bits:
        why = "a zero point goes with 2 to 8 bits"
    else:
        found = KERNELS[kind]
        return replace(found, kernel=f"quantize ({scheme.bits} bits, {found.kernel}), dot products of bytes")
    raise ConfigError(
        f"No kernel runs activations of the scheme {scheme.name}: {why}.",
        "Ask for dynamic groups or tokens, or static tensors; try this one by --simulate TEXT.",
    )
