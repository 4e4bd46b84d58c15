"""A bounds-checked reader of GGUF files, versions 2 and 3, over a mapped file.

Owns the container: header, metadata, tensor directory. It knows nothing of models. It is our own because a start from
disk to the first token has a fraction of a second, and because every number in a file may be a lie: sizes are checked
against the file before anything is allocated.

Format: the GGUF specification in the ggml repository (docs/gguf.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf_values import DAMAGED, Cursor, MetadataValue, quoted
from vivace.files.mapped_file import MappedFile
from vivace.files.sniff import describe_content
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.weights import TensorFormat

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_METADATA_KEYS = 1 << 14  # real files have dozens; the limit bounds memory on damaged ones
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 1 << 8

TENSOR_TYPES: dict[int, TensorFormat] = {
    0: TensorFormat.F32,
    1: TensorFormat.F16,
    2: TensorFormat.Q4_0,
    3: TensorFormat.Q4_1,
    6: TensorFormat.Q5_0,
    7: TensorFormat.Q5_1,
    8: TensorFormat.Q8_0,
    12: TensorFormat.Q4_K,
    13: TensorFormat.Q5_K,
    14: TensorFormat.Q6_K,
    30: TensorFormat.BF16,
    133: TensorFormat.Q6_0,  # ik_llama.cpp's number
    0x56_4E_38: TensorFormat.N8_0,  # "VN8": no number of GGML's, so that other programs refuse it in words
    0x56_51_38: TensorFormat.Q8_64,  # "VQ8": likewise
    0x56_51_36: TensorFormat.Q6_64,
    0x56_51_35: TensorFormat.Q5_64,
    0x56_51_34: TensorFormat.Q4_64,
    0x56_4D_38: TensorFormat.Q8_M,  # "VM8": likewise
}
_OTHER_TYPE_NAMES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A directory entry: row-major shape, format, and where its bytes lie in the file."""

    name: str
    shape: tuple[int, ...]
    format: TensorFormat
    offset: int
    num_bytes: int


class GgufFile:
    """An open GGUF file.

    Args:
        path: the file.

    Attributes:
        metadata: key to value; arrays are numpy views or `StringArray`.
        tensors: name to directory entry, in file order.
        version: 2 or 3.

    Raises:
        ModelFileError: the file is missing, damaged, truncated or no GGUF file.
        UnsupportedModelError: it is big-endian, of version 1, or has a tensor type vivace does not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            cursor = Cursor(self._file.data)
            self.version = _read_version(path, cursor)
            num_tensors = _bounded(cursor.u64("the header"), MAX_TENSORS, "tensors")
            num_keys = _bounded(cursor.u64("the header"), MAX_METADATA_KEYS, "metadata keys")
            self.metadata: Mapping[str, MetadataValue] = _read_metadata(cursor, num_keys)
            self.tensors: Mapping[str, GgufTensor] = _read_directory(
                cursor, num_tensors, _alignment(self.metadata), self._file.size
            )
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._file.size

    def tensor_bytes(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, a read-only view of the file."""
        tensor = self.tensors[name]
        return self._file.bytes_at(tensor.offset, tensor.num_bytes)

    def joined_bytes(self, tensors: Sequence[GgufTensor]) -> NDArray[np.uint8]:
        """The bytes of tensors one after the other: a read-only view where they lie so in the file, else a copy."""
        begin, count = tensors[0].offset, sum(tensor.num_bytes for tensor in tensors)
        ends = [begin, *(tensor.offset + tensor.num_bytes for tensor in tensors)]
        if all(tensor.offset == end for tensor, end in zip(tensors, ends, strict=False)):
            return self._file.bytes_at(begin, count)
        return np.concatenate([self.tensor_bytes(tensor.name) for tensor in tensors])

    def release_tensor(self, name: str) -> None:
        """Let the tensor's pages leave memory; reading brings them back."""
        tensor = self.tensors[name]
        self._file.release(tensor.offset, tensor.num_bytes)

    def close(self) -> None:
        """Release the mapped file."""
        self._file.close()


def _read_version(path: Path, cursor: Cursor) -> int:
    if cursor.data[:4] != MAGIC:
        raise ModelFileError(
            f"{path} is not a GGUF file: it looks like {describe_content(cursor.data[:512])}.",
            "Give a .gguf file, a Hugging Face folder, or a name from `vivace models list`.",
        )
    cursor.require(4, "the header")
    version = cursor.u32("the header")
    if version & 0xFFFF == 0 and version:
        raise UnsupportedModelError(f"{path} is a big-endian GGUF file.", "Convert it to little-endian.")
    if version == 1:
        raise UnsupportedModelError(f"{path} is a GGUF file of version 1.", "Convert the model with current tools.")
    if version not in (2, 3):
        raise UnsupportedModelError(f"{path} is a GGUF file of version {version}.", "vivace reads versions 2 and 3.")
    return version


def _bounded(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise ModelFileError(f"The model file claims {count} {what}; the most vivace reads is {limit}.", DAMAGED)
    return count


def _read_metadata(cursor: Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.string("A metadata key", MAX_NAME_BYTES)
        if key in metadata:
            raise ModelFileError(f"The metadata key {quoted(key)} appears twice.", DAMAGED)
        metadata[key] = cursor.value(key)
    return metadata


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise ModelFileError(
            f"The tensor alignment {str(alignment)[:20]} is no power of two between 8 and 2^20.", DAMAGED
        )
    return alignment


def _read_directory(cursor: Cursor, count: int, alignment: int, size: int) -> dict[str, GgufTensor]:
    entries = [_read_entry(cursor) for _ in range(count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, type_format, offset in entries:
        what = f"The tensor {quoted(name)}"
        if name in tensors:
            raise ModelFileError(f"{what} appears twice.", DAMAGED)
        length = num_bytes(type_format, shape)
        if offset % alignment:
            raise ModelFileError(f"{what} starts at {offset}, not a multiple of {alignment}.", DAMAGED)
        if data_start + offset + length > size:
            missing = data_start + offset + length - size
            raise ModelFileError(f"{what} ends {missing} bytes past the end of the model file.", DAMAGED)
        tensors[name] = GgufTensor(name, shape, type_format, data_start + offset, length)
    _check_overlap(tensors)
    return tensors


def _read_entry(cursor: Cursor) -> tuple[str, tuple[int, ...], TensorFormat, int]:
    name = cursor.string("A tensor name", MAX_NAME_BYTES)
    what = quoted(name)
    num_dimensions = cursor.u32(what)
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise ModelFileError(f"The tensor {what} has {num_dimensions} dimensions.", DAMAGED)
    shape = tuple(cursor.u64(what) for _ in range(num_dimensions))[::-1]  # GGUF lists the innermost dimension first
    if 0 in shape or math.prod(shape) >= 1 << 62:
        raise ModelFileError(f"The tensor {what} has the impossible shape {shape}.", DAMAGED)
    type_id = cursor.u32(what)
    offset = cursor.u64(what)
    if type_id not in TENSOR_TYPES:
        type_name = _OTHER_TYPE_NAMES.get(type_id, f"number {type_id}")
        raise UnsupportedModelError(
            f"The tensor {what} has type {type_name}.",
            f"vivace reads {', '.join(row.value for row in TENSOR_TYPES.values())}; get the model in one of these.",
        )
    return name, shape, TENSOR_TYPES[type_id], offset


def _check_overlap(tensors: Mapping[str, GgufTensor]) -> None:
    last_end, last_name = 0, ""
    for tensor in sorted(tensors.values(), key=lambda entry: entry.offset):
        if tensor.offset < last_end:
            raise ModelFileError(f"The tensors {quoted(last_name)} and {quoted(tensor.name)} overlap.", DAMAGED)
        last_end, last_name = tensor.offset + tensor.num_bytes, tensor.name
