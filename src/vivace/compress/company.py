"""What parts lose together, beside the sum of what each loses alone.

KL divergence is quadratic in small changes of the weights only: four bits everywhere lose more than their parts' sum,
and five bits less than a quarter of that. All parts together are measured at the step of the lowest format, at a half
and a quarter of it, which are the steps of formats of one and two bits more, and losses are scaled by what is found.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.compress.schemes import Floats
from vivace.numerics.formats import num_bytes
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource

MOST_BITS = 2  # above the lowest format, that are measured; from there on the change is small


class MovedWeights:
    """A `WeightSource` with some matrices moved a share of the way to where they are rounded; those are float32.

    Args:
        base: the source, which the caller owns.
        rounded: a matrix at the end of the way, by its name.
        names: of the matrices that are moved.
        share: of the way, 0 to 1.
    """

    def __init__(
        self, base: WeightSource, rounded: Callable[[str], Floats], names: Collection[str], share: float
    ) -> None:
        self._base, self._rounded, self._names, self._share = base, rounded, frozenset(names), np.float32(share)

    def names(self) -> Sequence[str]:
        """Those of the base."""
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        info = self._base.info(name)
        if name not in self._names:
            return info
        return TensorInfo(name, info.shape, TensorFormat.F32, num_bytes(TensorFormat.F32, info.shape))

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D."""
        if name not in self._names:
            return self._base.raw(name)
        return np.ascontiguousarray(self.dequantize(name)).view(np.uint8).reshape(-1)

    def dequantize(self, name: str) -> Floats:
        """The tensor as float32 of `info(name).shape`."""
        values = self._base.dequantize(name)
        if name in self._names:
            values += self._share * (self._rounded(name) - values)
        return values

    def release(self, name: str) -> None:
        """Let the pages of the base leave memory."""
        self._base.release(name)

    def close(self) -> None:
        """Nothing: the base is the caller's."""


def company_factors(total: float, together: Callable[[float], float]) -> tuple[float, ...]:
    """What to multiply losses by, at the lowest format's bits, at one and at two (and more) above them.

    Args:
        total: the sum of what parts lose alone in the lowest format.
        together: KL divergence of all parts moved by a share of their steps in it.
    """
    if total <= 0:
        return (1.0,) * (MOST_BITS + 1)
    return tuple(together(0.5**bits) * 4**bits / total for bits in range(MOST_BITS + 1))
