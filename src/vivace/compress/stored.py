"""A compressed model in memory: stored bytes under vivace's names, readable as any other weights are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.compress.containers import pack_matrix
from vivace.compress.schemes import Floats, QuantizedMatrix
from vivace.numerics.formats import dequantize, quantize
from vivace.numerics.row_bands import dequantize_bands, main_format
from vivace.types.errors import ModelFileError
from vivace.types.weights import RowBand, TensorFormat, TensorInfo, WeightSource


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor as it lies in a file: row-major shape, format and bytes; `bands` as `TensorInfo` has them."""

    shape: tuple[int, ...]
    format: TensorFormat
    data: NDArray[np.uint8]
    bands: tuple[RowBand, ...] = ()

    def dequantize(self) -> Floats:
        """float32 of `shape`."""
        if self.bands:
            return dequantize_bands(self.bands, self.data, self.shape)
        return dequantize(self.format, self.data, self.shape)


def store_quantized(matrix: QuantizedMatrix, format: TensorFormat) -> StoredTensor:
    """A quantised matrix in one of the formats of `containers.py`."""
    return StoredTensor(matrix.codes.shape, format, pack_matrix(matrix, format))


def store_floats(values: Floats, format: TensorFormat) -> StoredTensor:
    """Values rounded to nearest in any format, F32 and F16 among them."""
    return StoredTensor(values.shape, format, quantize(format, values))


def store_bands(pieces: Sequence[StoredTensor]) -> StoredTensor:
    """Bands of rows of one matrix, in order."""
    bands, begin = [], 0
    for piece in pieces:
        bands.append(RowBand(begin, begin + piece.shape[0], piece.format))
        begin += piece.shape[0]
    data = np.concatenate([piece.data for piece in pieces])
    return StoredTensor((begin, pieces[0].shape[1]), main_format(bands), data, tuple(bands))


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
        return TensorInfo(name, tensor.shape, tensor.format, tensor.data.size, tensor.bands)

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
