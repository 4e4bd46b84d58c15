"""The typed values of a GGUF header, read from a mapped file with every length checked before it is believed.

Arrays are never turned into Python lists here: numbers stay views of the file, strings stay in the file with one
offset each, so that reading a header takes no more memory than the header itself.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ModelFileError

DAMAGED = "The file is damaged or incomplete; get it again."

MAX_STRING_BYTES = 1 << 20  # of a single value, such as a chat template; bounds memory on damaged files
CHUNK_STRINGS = 8192  # decoded at once; bounds the memory for it
MAX_SHOWN = 80  # characters of a name in a message

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

STRING_TYPE = 8
ARRAY_TYPE = 9
BOOL_TYPE = 7
SCALAR_TYPES: dict[int, np.dtype[np.generic]] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    BOOL_TYPE: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class StringArray:
    """Strings that still lie in the file: string i is `data[starts[i] : ends[i]]`, UTF-8."""

    data: mmap.mmap
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def decode(self) -> list[str]:
        """All strings.

        Raises:
            ModelFileError: one of them is not UTF-8.
        """
        strings: list[str] = []
        try:
            for first in range(0, len(self.starts), CHUNK_STRINGS):
                strings += self._decode_chunk(first, min(first + CHUNK_STRINGS, len(self.starts)))
        except UnicodeDecodeError:
            raise ModelFileError("A string in the model file's metadata is not valid UTF-8.", DAMAGED) from None
        return strings

    def _decode_chunk(self, first: int, last: int) -> list[str]:
        """Strings `first` to `last`: their lengths are cut out of the bytes between them, all are decoded at once."""
        starts, ends = self.starts[first:last], self.ends[first:last]
        begin = int(starts[0]) - _U64.size
        blob = np.frombuffer(self.data, np.uint8, int(ends[-1]) - begin, begin).copy()
        lengths = starts - _U64.size - begin
        kept = np.ones(len(blob), dtype=np.bool_)
        for place in range(1, _U64.size):
            kept[lengths + place] = False
        blob[lengths] = 0  # what is left of a length is the separator
        joined = blob[kept].tobytes()
        if joined.count(b"\0") == last - first:
            return joined.decode("utf-8").split("\0")[1:]
        spans = zip(starts.tolist(), ends.tolist(), strict=True)  # a string holds the separator: one by one
        return [str(self.data[start:end], "utf-8") for start, end in spans]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decode())


MetadataValue = int | float | bool | str | StringArray | NDArray[np.generic]


def quoted(name: str) -> str:
    """A name from a file as it may stand in a message: in quotes, escaped, and not too long."""
    return ascii(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}...")


class Cursor:
    """Reads forward through the header; `position` is the next unread byte."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0

    def require(self, num_bytes: int, what: str) -> int:
        """Check that `num_bytes` more bytes exist, step over them, and return where they start."""
        start = self.position
        if num_bytes > self.size - start:
            raise ModelFileError(f"The model file ends inside {what} (at byte {start} of {self.size}).", DAMAGED)
        self.position = start + num_bytes
        return start

    def u32(self, what: str) -> int:
        """An unsigned 32-bit number."""
        value: int = _U32.unpack_from(self.data, self.require(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        """An unsigned 64-bit number."""
        value: int = _U64.unpack_from(self.data, self.require(8, what))[0]
        return value

    def string(self, what: str, limit: int = MAX_STRING_BYTES) -> str:
        """A length-prefixed string; bytes that are not UTF-8 are replaced, as only labels are read this way."""
        length = self.u64(what)
        if length > limit:
            raise ModelFileError(f"{what} claims to be {length} bytes long; the most is {limit}.", DAMAGED)
        start = self.require(length, what)
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, key: str) -> MetadataValue:
        """One metadata value: a type number, then the value."""
        return self._value(quoted(key))

    def _value(self, what: str) -> MetadataValue:
        type_id = self.u32(what)
        if type_id == STRING_TYPE:
            return self.string(what)
        if type_id == ARRAY_TYPE:
            return self._array(what)
        dtype = _scalar_type(type_id, what)
        item = np.frombuffer(self.data, dtype, 1, self.require(dtype.itemsize, what))[0].item()
        return bool(item) if type_id == BOOL_TYPE else item

    def _array(self, what: str) -> MetadataValue:
        type_id = self.u32(what)
        count = self.u64(what)
        if type_id == ARRAY_TYPE:
            raise ModelFileError(
                f"The metadata key {what} holds arrays within arrays.", "vivace reads flat arrays only."
            )
        if type_id == STRING_TYPE:
            return self._strings(count, what)
        dtype = _scalar_type(type_id, what)
        start = self.require(count * dtype.itemsize, what)
        return np.frombuffer(self.data, dtype, count, start) if count else np.empty(0, dtype)

    def _strings(self, count: int, what: str) -> StringArray:
        data, size, position = self.data, self.size, self.position
        if count > (size - position) // 8:
            raise ModelFileError(f"{what} claims {count} strings, more than the model file can hold.", DAMAGED)
        starts = np.empty(count, dtype=np.int64)
        ends = np.empty(count, dtype=np.int64)
        start_items, end_items = starts.data, ends.data
        unpack, last = _U64.unpack_from, size - 8
        for index in range(count):  # a vocabulary has hundreds of thousands: keep this loop bare
            if position > last:
                raise ModelFileError(f"The model file ends inside {what}.", DAMAGED)
            (length,) = unpack(data, position)
            position += 8
            start_items[index] = position
            position += length
            if position > size:
                raise ModelFileError(f"A string of {what} is longer than the model file.", DAMAGED)
            end_items[index] = position
        self.position = position
        return StringArray(data, starts, ends)


def _scalar_type(type_id: int, what: str) -> np.dtype[np.generic]:
    dtype = SCALAR_TYPES.get(type_id)
    if dtype is None:
        raise ModelFileError(f"The metadata key {what} has unknown value type {type_id}.", DAMAGED)
    return dtype
