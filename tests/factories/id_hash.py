"""A short fingerprint of a list of token ids, for golden files."""

import hashlib
import struct
from collections.abc import Sequence


def hash_ids(ids: Sequence[int]) -> int:
    """64 bits that stand for `ids`."""
    data = struct.pack(f"<{len(ids)}I", *ids)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
