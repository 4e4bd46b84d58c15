"""Names for the contents of full KV blocks: a chain of hashes, so equal names mean equal tokens from the start on.

The key of block b is blake2b(key of block b - 1, the 16 token ids of block b). With 128 bits a chance meeting of two
different prefixes is out of question (about 1e-20 among a billion blocks), and a salt keeps tenants apart.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class KeyChange:
    """From block `first_block` on, keys are told apart by `salt` as well: contents there are not what others have."""

    first_block: int
    salt: bytes


def extend_keys(
    keys: list[bytes], tokens: NDArray[np.int32], salt: bytes = b"", change: KeyChange | None = None
) -> None:
    """Append to `keys` the keys of the full blocks of `tokens` that it does not have yet.

    Args:
        keys: keys of the first blocks of the same tokens; grows in place.
        tokens: all known tokens from position 0, int32 (n,).
        salt: seeds the chain; equal tokens under different salts have different keys.
        change: where the chain parts from that of the same tokens under another policy.
    """
    num_full = len(tokens) // BLOCK_SIZE
    for block in range(len(keys), num_full):
        content = tokens[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE].tobytes()
        parent = keys[block - 1] if block else salt
        if change is not None and block == change.first_block:
            parent += change.salt
        keys.append(hashlib.blake2b(parent + content, digest_size=16).digest())
