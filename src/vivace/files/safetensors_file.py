"""A bounds-checked reader of one safetensors file, mapped into memory.

Format: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivace.files.mapped_file import MappedFile
from vivace.files.sniff import describe_content
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.weights import TensorFormat

DAMAGED = "It is damaged or incomplete; get it again."
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
INTEGER_BYTES = {"I8": 1, "I32": 4, "I64": 8}
DTYPES = {"F32": TensorFormat.F32, "F16": TensorFormat.F16, "BF16": TensorFormat.BF16}


@dataclass(frozen=True, slots=True)
class SafetensorsEntry:
    """One tensor: row-major shape, format, and where its bytes lie in the file."""

    shape: tuple[int, ...]
    format: TensorFormat
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class IntegerEntry:
    """A tensor of integers: row-major shape, type as the file names it, and where its bytes lie."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    num_bytes: int


class _RawEntry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class SafetensorsFile:
    """An open safetensors file.

    Args:
        path: the file.
        with_integers: take integer tensors too, instead of refusing the file for them.

    Attributes:
        entries: tensor name to entry.
        integers: the same of integer tensors.

    Raises:
        ModelFileError: the file is missing, damaged, truncated or no safetensors file.
        UnsupportedModelError: a tensor has a type other than F32, F16 or BF16.
    """

    def __init__(self, path: Path, *, with_integers: bool = False) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            header, data_start = _read_header(path, self._file)
            whole = {name for name, raw in header.items() if with_integers and raw.dtype in INTEGER_BYTES}
            self.integers: Mapping[str, IntegerEntry] = {
                name: _checked_integers(path, name, header[name], data_start, self._file.size) for name in whole
            }
            self.entries: Mapping[str, SafetensorsEntry] = {
                name: _checked(path, name, raw, data_start, self._file.size)
                for name, raw in header.items()
                if name not in whole
            }
            _check_overlap(path, {**self.entries, **self.integers})
        except BaseException:
            self._file.close()
            raise

    def tensor_bytes(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, a read-only view of the file."""
        entry = self.entries[name] if name in self.entries else self.integers[name]
        return self._file.bytes_at(entry.offset, entry.num_bytes)

    def release_tensor(self, name: str) -> None:
        """Let the tensor's pages leave memory; reading brings them back."""
        entry = self.entries[name]
        self._file.release(entry.offset, entry.num_bytes)

    def close(self) -> None:
        """Release the mapped file."""
        self._file.close()


def _read_header(path: Path, file: MappedFile) -> tuple[dict[str, _RawEntry], int]:
    length = int.from_bytes(file.data[:8], "little")
    if file.size < 8 or file.data[8:9] != b"{":
        raise ModelFileError(
            f"{path} is not a safetensors file: it looks like {describe_content(file.data[:512])}.", "Get it again."
        )
    if length > min(file.size - 8, MAX_HEADER_BYTES):
        raise ModelFileError(f"The header of {path} claims {length} bytes; the file has {file.size}.", DAMAGED)
    try:
        raw = msgspec.json.decode(file.data[8 : 8 + length], type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(entry, type=_RawEntry) for name, entry in raw.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"The header of {path} is not what it should be: {error}.", DAMAGED) from None
    return entries, 8 + length


def _checked(path: Path, name: str, raw: _RawEntry, data_start: int, size: int) -> SafetensorsEntry:
    if raw.dtype not in DTYPES:
        raise UnsupportedModelError(
            f"The tensor {name[:200]!a} in {path} has type {raw.dtype[:40]}.",
            f"vivace reads {', '.join(DTYPES)} from safetensors; get the model in one of these.",
        )
    shape = tuple(raw.shape)
    start, count = _extent(path, name, raw, size - data_start, num_bytes(DTYPES[raw.dtype], shape))
    return SafetensorsEntry(shape, DTYPES[raw.dtype], data_start + start, count)


def _checked_integers(path: Path, name: str, raw: _RawEntry, data_start: int, size: int) -> IntegerEntry:
    wanted = math.prod(raw.shape) * INTEGER_BYTES[raw.dtype]
    start, count = _extent(path, name, raw, size - data_start, wanted)
    return IntegerEntry(tuple(raw.shape), raw.dtype, data_start + start, count)


def _extent(path: Path, name: str, raw: _RawEntry, available: int, wanted: int) -> tuple[int, int]:
    """Where a tensor starts and how many bytes it has, after checks."""
    start, end = raw.data_offsets
    if min(raw.shape, default=1) < 1 or not 0 <= start <= end <= available:
        raise ModelFileError(f"The tensor {name[:200]!a} does not lie inside {path}.", DAMAGED)
    if wanted != end - start:
        shape = tuple(raw.shape)
        raise ModelFileError(f"The tensor {name[:200]!a} of shape {shape} in {path} has {end - start} bytes.", DAMAGED)
    return start, end - start


def _check_overlap(path: Path, entries: Mapping[str, SafetensorsEntry | IntegerEntry]) -> None:
    last_end, last_name = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if entry.offset < last_end:
            raise ModelFileError(f"The tensors {last_name[:200]!a} and {name[:200]!a} in {path} overlap.", DAMAGED)
        last_end, last_name = entry.offset + entry.num_bytes, name
