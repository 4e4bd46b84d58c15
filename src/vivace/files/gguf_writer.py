"""Writes GGUF files, version 3, little-endian: for compressed models, benchmarks and tests.

Python values become the GGUF types readers expect: bool, str, int (uint32, or int64 where that does not fit), float
(float32), list of str, and numpy arrays and scalars as their own type.
"""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf import DEFAULT_ALIGNMENT, MAGIC, TENSOR_TYPES
from vivace.files.gguf_values import ARRAY_TYPE, BOOL_TYPE, SCALAR_TYPES, STRING_TYPE
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

WritableValue = bool | int | float | str | Sequence[str] | NDArray[np.generic] | np.generic

_VERSION = 3
_TYPE_IDS = {format: number for number, format in TENSOR_TYPES.items()}
_SCALAR_IDS = {dtype: number for number, dtype in SCALAR_TYPES.items() if number != BOOL_TYPE}


@dataclass(frozen=True, slots=True)
class TensorToWrite:
    """A tensor: row-major shape, format, and a function that gives its bytes when they are due."""

    name: str
    shape: tuple[int, ...]
    format: TensorFormat
    read: Callable[[], NDArray[np.uint8]]


def write_gguf_file(
    path: Path,
    metadata: Mapping[str, WritableValue],
    tensors: Sequence[TensorToWrite],
    alignment: int = DEFAULT_ALIGNMENT,
) -> None:
    """Write a file beside `path` and move it there, so that a reader never sees half of it.

    Args:
        path: the file to make; its folder exists.
        metadata: keys and values, `general.alignment` left out.
        tensors: in the order they are to lie in the file; only one at a time is held in memory.
        alignment: of tensor data, a power of two from 8.

    Raises:
        ConfigError: a tensor's bytes are not as many as its shape asks for, or a value has no GGUF type.
        OSError: the file cannot be written.
    """
    values = dict(metadata)
    if alignment != DEFAULT_ALIGNMENT:
        values["general.alignment"] = alignment
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(header_bytes(values, tensors, alignment))
            _pad(file, alignment)
            for tensor in tensors:
                _write_tensor(file, tensor)
                _pad(file, alignment)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def gguf_file_bytes(
    metadata: Mapping[str, WritableValue], tensors: Sequence[TensorToWrite], alignment: int = DEFAULT_ALIGNMENT
) -> int:
    """Bytes of the file that `write_gguf_file` would make of the same; no tensor is read."""
    sizes = [len(header_bytes(metadata, tensors, alignment))]
    sizes += [num_bytes(tensor.format, tensor.shape) for tensor in tensors]
    return sum(-(-size // alignment) * alignment for size in sizes)


def header_bytes(metadata: Mapping[str, WritableValue], tensors: Sequence[TensorToWrite], alignment: int) -> bytes:
    """Everything before the tensor data, without the padding at its end."""
    parts = [MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    parts += [_string(key) + _typed_value(value) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        parts.append(_string(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        parts.append(struct.pack("<IQ", _TYPE_IDS[tensor.format], offset))
        offset += -(-num_bytes(tensor.format, tensor.shape) // alignment) * alignment
    return b"".join(parts)


def _write_tensor(file: BinaryIO, tensor: TensorToWrite) -> None:
    data = tensor.read()
    if data.size != num_bytes(tensor.format, tensor.shape):
        raise ConfigError(f"The tensor {tensor.name!r} of shape {tensor.shape} has {data.size} bytes.")
    file.write(np.ascontiguousarray(data).data)


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _typed_value(value: WritableValue) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL_TYPE, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING_TYPE) + _string(value)
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", ARRAY_TYPE, _dtype_id(value.dtype), len(value)) + _little_endian(value)
    if isinstance(value, int | float | np.generic):
        number = _numpy_scalar(value)
        return struct.pack("<I", _dtype_id(number.dtype)) + _little_endian(number)
    return struct.pack("<IIQ", ARRAY_TYPE, STRING_TYPE, len(value)) + b"".join(_string(text) for text in value)


def _numpy_scalar(value: int | float | np.generic) -> np.generic:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, float):
        return np.float32(value)
    return np.uint32(value) if 0 <= value < 1 << 32 else np.int64(value)


def _little_endian(value: NDArray[np.generic] | np.generic) -> bytes:
    return value.astype(value.dtype.newbyteorder("<")).tobytes()


def _dtype_id(dtype: np.dtype[np.generic]) -> int:
    if dtype == np.bool_:
        return BOOL_TYPE
    if dtype.newbyteorder("<") not in _SCALAR_IDS:
        raise ConfigError(f"GGUF has no type for {dtype} values.", "Use 8 to 64-bit numbers.")
    return _SCALAR_IDS[dtype.newbyteorder("<")]
