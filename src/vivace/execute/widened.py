"""Weights as float32, whatever they are stored as: what the exact setting of the native executor reads.

The values are those that codes stand for, to the bit; matrix products over them read float32 inputs, so that nothing of
a step is rounded to codes. Four bytes a weight in memory, a matrix at a time while they are packed.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.weights import TensorFormat, TensorInfo, WeightSource


class WidenedWeights:
    """A `WeightSource` of float32 copies, made when they are asked for.

    Args:
        weights: what is widened; `close` closes it.
    """

    def __init__(self, weights: WeightSource) -> None:
        self._weights = weights

    def names(self) -> Sequence[str]:
        """As the source's."""
        return self._weights.names()

    def info(self, name: str) -> TensorInfo:
        """The source's shape, in F32; raises ModelFileError when it is missing."""
        shape = self._weights.info(name).shape
        return TensorInfo(name, shape, TensorFormat.F32, 4 * math.prod(shape))

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The float32 values as bytes, a copy."""
        return np.ascontiguousarray(self._weights.dequantize(name)).reshape(-1).view(np.uint8)

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """As the source's."""
        return self._weights.dequantize(name)

    def release(self, name: str) -> None:
        """As the source's."""
        self._weights.release(name)

    def close(self) -> None:
        """Close the source."""
        self._weights.close()
