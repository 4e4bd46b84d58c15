"""A compressed model in memory: stored bytes under vivace's names, readable as any other weights are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.compress.containers import pack_matrix
from vivace.compress.schemes import Floats, QuantizedMatrix
from vivace.numerics.formats import dequantize, quantize
from vivace.types.errors import ModelFileError
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor as it lies in a file: row-major shape, format and bytes."""

    shape: tuple[int, ...]
    format: TensorFormat
    data: NDArray[np.uint8]

    def dequantize(self) -> Floats:
        """float32 of `shape`."""
        return dequantize(self.format, self.data, self.shape)


def store_quantized(matrix: QuantizedMatrix, format: TensorFormat) -> StoredTensor:
    """A quantised matrix in one of the formats of `containers.py`."""
    return StoredTensor(matrix.codes.shape, format, pack_matrix(matrix, format))


def store_floats(values: Floats, format: TensorFormat) -> StoredTensor:
    """Values rounded to nearest in any format, F32 and F16 among them."""
    return StoredTensor(values.shape, format, quantize(format, values))


class StoredWeights:
    """A `WeightSource` over stored tensors; what they lack is read from `base`, which the caller owns.

    Args:
        tensors: by vivace's names.
        base: where all other tensors come from, or None.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor], base: WeightSource | None = None) -> None:
        self._tensors = dict(tensors)
        self._base = base

    def names(self) -> Sequence[str]:
        """All tensor names: those of the base in its order, then the others."""
        base = [] if self._base is None else list(self._base.names())
        return [*base, *(name for name in self._tensors if name not in set(base))]

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return self._needed_base(name).info(name)
        return TensorInfo(name, tensor.shape, tensor.format, tensor.data.size)

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D."""
        tensor = self._tensors.get(name)
        return self._needed_base(name).raw(name) if tensor is None else tensor.data

    def dequantize(self, name: str) -> Floats:
        """The tensor as float32 of `info(name).shape`."""
        tensor = self._tensors.get(name)
        return self._needed_base(name).dequantize(name) if tensor is None else tensor.dequantize()

    def release(self, name: str) -> None:
        """Let the pages of a tensor of the base leave memory."""
        if name not in self._tensors:
            self._needed_base(name).release(name)

    def close(self) -> None:
        """Nothing: the bytes go with this object, the base is the caller's."""

    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.info(name).num_bytes for name in self.names())

    def _needed_base(self, name: str) -> WeightSource:
        if self._base is None:
            raise ModelFileError(f"The model has no tensor {name}.", "Get the file again.")
        return self._base
