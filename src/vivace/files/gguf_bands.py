"""Matrices in bands of rows, as several tensors of a GGUF file.

The first band has the matrix's name, every other that name and the number of its first row: `token_embd.weight`,
`token_embd.weight.512`, `token_embd.weight.8192`. Programs that know nothing of bands refuse such a file, as the number
of rows is not that of the vocabulary. Written one after the other, bands are one piece of the file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf import GgufFile, GgufTensor
from vivace.numerics.formats import dequantize
from vivace.numerics.row_bands import check_bands, dequantize_bands, main_format
from vivace.types.errors import ModelFileError
from vivace.types.weights import RowBand, TensorFormat

_BAND = re.compile(r"(?P<stem>[a-z0-9_.]+\.weight)\.(?P<begin>[1-9][0-9]{0,9})")


def band_name(name: str, begin: int) -> str:
    """The name of the tensor that holds the rows of a matrix from `begin` on."""
    return f"{name}.{begin}" if begin else name


@dataclass(frozen=True, slots=True)
class BandedTensor:
    """A tensor of one file: its bands in order, of which most tensors have one."""

    file: GgufFile
    tensors: tuple[GgufTensor, ...]
    bands: tuple[RowBand, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major, of all bands together."""
        first = self.tensors[0].shape
        return (self.bands[-1].end, *first[1:]) if self.bands else first

    @property
    def format(self) -> TensorFormat:
        """That of most rows."""
        return main_format(self.bands) if self.bands else self.tensors[0].format

    @property
    def num_bytes(self) -> int:
        """Bytes of all bands."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    def raw(self) -> NDArray[np.uint8]:
        """The bytes of the bands one after the other: a view of the file where they lie so, else a copy."""
        return self.file.joined_bytes(self.tensors)

    def dequantize(self) -> NDArray[np.float32]:
        """float32 of `shape`."""
        if not self.bands:
            return dequantize(self.format, self.raw(), self.shape)
        return dequantize_bands(self.bands, self.raw(), self.shape)

    def release(self) -> None:
        """Let the pages of the bands leave memory."""
        for tensor in self.tensors:
            self.file.release_tensor(tensor.name)


def join_bands(file: GgufFile) -> Iterator[tuple[str, BandedTensor]]:
    """The tensors of a file by name, those that are bands of rows of one matrix joined, in file order.

    Raises:
        ModelFileError: bands do not make a matrix.
    """
    later = _later_bands(file)
    joined = {band.name for bands in later.values() for _, band in bands}
    for name, tensor in file.tensors.items():
        if name not in joined:
            yield name, _joined(file, tensor, later.get(name, []))


def directory(file: GgufFile) -> dict[str, GgufTensor]:
    """Names and shapes with bands joined, for whoever asks for no more; errors as `join_bands`."""
    later = _later_bands(file)
    joined = {band.name for bands in later.values() for _, band in bands}
    entries = {name: tensor for name, tensor in file.tensors.items() if name not in joined}
    for name, bands in later.items():
        entries[name] = replace(entries[name], shape=_joined(file, entries[name], bands).shape)
    return entries


def _later_bands(file: GgufFile) -> dict[str, list[tuple[int, GgufTensor]]]:
    """By the name of the matrix: first row and tensor of all bands but the first, in order."""
    later: dict[str, list[tuple[int, GgufTensor]]] = {}
    for name, tensor in file.tensors.items():
        match = _BAND.fullmatch(name)
        if match is not None and match["stem"] in file.tensors:
            later.setdefault(match["stem"], []).append((int(match["begin"]), tensor))
    return {name: sorted(bands, key=lambda band: band[0]) for name, bands in later.items()}


def _joined(file: GgufFile, first: GgufTensor, later: Sequence[tuple[int, GgufTensor]]) -> BandedTensor:
    if not later:
        return BandedTensor(file, (first,))
    tensors = (first, *(tensor for _, tensor in later))
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or len(first.shape) != 2:
        raise ModelFileError(f"The bands of rows of {first.name} are not equally long.", "Get the file again.")
    begins = (0, *(begin for begin, _ in later))
    bands = tuple(
        RowBand(begin, begin + tensor.shape[0], tensor.format) for begin, tensor in zip(begins, tensors, strict=True)
    )
    check_bands(bands, bands[-1].end)
    return BandedTensor(file, tensors, bands)
