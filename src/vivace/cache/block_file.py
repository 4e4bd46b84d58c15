"""One KV block in one file: a header that says whose and what it is, then the bytes.

A file is written under another name and renamed when it is whole, so that a process that is killed leaves no half file
under a block's name. What a power failure may leave (a whole name, half the bytes) fails the checksum. A file of
another model, KV format or version, or with a wrong byte in it, reads as absent: a miss costs at most a prefill.
"""

import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from vivace.types.step import BlockContent

SUFFIX = ".kv"
UNFINISHED_SUFFIX = ".part"
MAGIC = b"VIVACE\x00\x01"  # the last byte is the version
_HEADER = struct.Struct("<8s16s16sQI")  # magic, fingerprint, key, bytes that follow, their CRC-32


def write_block_file(path: Path, fingerprint: bytes, key: bytes, content: BlockContent) -> int:
    """Write a block, whole or not at all; returns the bytes of the file.

    Args:
        path: of the file; its folder is there.
        fingerprint: of the model and the way its keys and values are stored, 16 bytes.
        key: name of the content, 16 bytes.
        content: the block.

    Raises:
        OSError: it cannot be written.
    """
    header = _HEADER.pack(MAGIC, fingerprint, key, content.nbytes, zlib.crc32(content.data))
    unfinished = path.with_name(f"{path.stem}-{os.getpid()}{UNFINISHED_SUFFIX}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds what people asked
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header)
            file.write(content.data)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return len(header) + content.nbytes


def read_block_file(path: Path, fingerprint: bytes, key: bytes, sizes: Collection[int]) -> BlockContent | None:
    """The content of a block file, or None when it is not there or not what it should be.

    Args:
        path: of the file.
        fingerprint: see `write_block_file`.
        key: see `write_block_file`.
        sizes: how many bytes a block may have.
    """
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size - _HEADER.size
            if num_bytes not in sizes:
                return None
            header = file.read(_HEADER.size)
            content = np.fromfile(file, dtype=np.uint8, count=num_bytes)
    except OSError:
        return None
    if len(header) != _HEADER.size or content.nbytes != num_bytes:
        return None
    if _HEADER.unpack(header) != (MAGIC, fingerprint, key, num_bytes, zlib.crc32(content.data)):
        return None
    return content
