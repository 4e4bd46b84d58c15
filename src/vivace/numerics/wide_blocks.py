"""Q8_64: Q8_0 in blocks of 64 columns, 8.25 bits a weight in place of 8.5.

A block is 66 bytes: a float16 scale s, then 64 signed codes q from -127 to 127; a weight is s q. The native core reads
a block as two groups of 32 columns of one scale, so that it runs by the kernel of Q8_0.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK, BLOCK_BYTES = 64, 66
HIGHEST = 127
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def decode(blocks: Bytes) -> Floats:
    """uint8 (n, 66) to float32 (n, 64)."""
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    values: Floats = scales * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    return values


def encode(blocks: Floats) -> Bytes:
    """Rounded to nearest at the scale that keeps the largest weight: float32 (n, 64) to uint8 (n, 66)."""
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    stored = np.minimum(largest / np.float32(HIGHEST), np.float32(65504)).astype("<f2")
    divisor = np.where(stored == 0, np.float32(1), stored.astype(np.float32))
    codes = np.clip(np.rint(blocks / divisor), -HIGHEST, HIGHEST).astype(np.int8)
    return np.concatenate([stored.view(np.uint8), codes.view(np.uint8)], axis=1)
