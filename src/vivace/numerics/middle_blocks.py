"""Q8_M: eight bits a weight about a middle of their own, 9 bits with both numbers; for grids with a zero point.

A block is 36 bytes for 32 columns: a float16 scale s, a float16 middle m, then 32 signed codes q from -128 to 127; a
weight is s q + m. The middle is what the code 0 stands for. A minimum, as Q5_1 has, would be some 128 steps away from
it, and float16 would leave it off by up to a sixteenth of a step; the middle of weights on both sides of 0 is small.
The native core runs it by the kernel of Q5_1, whose codes are a byte as well.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK, BLOCK_BYTES = 32, 36
LOWEST, HIGHEST = -128, 127
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_LARGEST = np.float32(65504)


def decode(blocks: Bytes) -> Floats:
    """uint8 (n, 36) to float32 (n, 32)."""
    halves = np.ascontiguousarray(blocks[:, :4]).view("<f2").astype(np.float32)
    codes = np.ascontiguousarray(blocks[:, 4:]).view(np.int8).astype(np.float32)
    values: Floats = halves[:, :1] * codes + halves[:, 1:]
    return values


def encode(blocks: Floats) -> Bytes:
    """Rounded to nearest over the whole range of a block: float32 (n, 32) to uint8 (n, 36)."""
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    scales = np.clip((high - low) / np.float32(HIGHEST - LOWEST), 0, _LARGEST).astype("<f2")
    middles = np.clip(low - np.float32(LOWEST) * scales.astype(np.float32), -_LARGEST, _LARGEST).astype("<f2")
    divisors = np.where(scales == 0, np.float32(1), scales.astype(np.float32))
    codes = np.clip(np.rint((blocks - middles.astype(np.float32)) / divisors), LOWEST, HIGHEST)
    parts = (scales.view(np.uint8), middles.view(np.uint8), codes.astype(np.int8).view(np.uint8))
    return np.concatenate(parts, axis=1)
