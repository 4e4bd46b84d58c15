"""N8_0, the nested format: eight bits of which the high four are a 4-bit weight, so that one copy serves both.

A block of 32 weights is 34 bytes: a float16 scale s, 16 bytes of high nibbles h, 16 of low nibbles l; column i in the
low and column i + 16 in the high half of byte i, 8 added to each. In eight bits a weight is s (16 h + l), in four 16 s
h. Codes 16 h + l reach from -128 to 119, so that l never leaves -8 .. 7 and h is the nearest code of the coarser scale.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK, BLOCK_BYTES = 32, 34
LOWEST, HIGHEST = -128, 119
LARGEST_SCALE = 65504 / 16  # of four bits it is 16 times as much, and still a float16
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def decode(blocks: Bytes) -> Floats:
    """All eight bits: uint8 (n, 34) to float32 (n, 32)."""
    return _scales(blocks) * (16 * _nibbles(blocks[:, 2:18]) + _nibbles(blocks[:, 18:])).astype(np.float32)


def decode_high(blocks: Bytes) -> Floats:
    """The high four bits alone: uint8 (n, 34) to float32 (n, 32)."""
    return (np.float32(16) * _scales(blocks)) * _nibbles(blocks[:, 2:18]).astype(np.float32)


def pack(codes: NDArray[np.int16], scales: Bytes) -> Bytes:
    """Codes -128 .. 119 (n, 32) and float16 scales as bytes (n, 2) to blocks (n, 34)."""
    high = (codes + 8) >> 4  # the nearest multiple of 16; halves go up, so that low nibbles start at -8
    return np.concatenate([scales, _paired(high + 8), _paired(codes - 16 * high + 8)], axis=1)


def high_halves(codes: Floats) -> Floats:
    """What codes are when their low halves are not read: the nearest multiples of 16, halves up."""
    halves: Floats = np.floor((codes + np.float32(8)) / np.float32(16)) * np.float32(16)
    return halves


def spanning_scale(low: Floats, high: Floats) -> Floats:
    """The scale at which no weight from `low` to `high` is clipped; its sign gives the larger end the more codes."""
    sign = np.where(-low >= high, np.float32(1), np.float32(-1))
    below, above = np.where(sign > 0, (-low, high), (high, -low))
    scale: Floats = sign * np.maximum(below / np.float32(-LOWEST), above / np.float32(HIGHEST))
    return scale


def encode(blocks: Floats) -> Bytes:
    """Rounded to nearest at the scale that keeps the largest weight: float32 (n, 32) to uint8 (n, 34)."""
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    stored = np.clip(spanning_scale(low, high), -LARGEST_SCALE, LARGEST_SCALE).astype("<f2")
    divisor = np.where(stored == 0, np.float32(1), stored.astype(np.float32))
    codes = np.clip(np.rint(blocks / divisor), LOWEST, HIGHEST).astype(np.int16)
    return pack(codes, stored.view(np.uint8))


def _scales(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> NDArray[np.int16]:
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int16) - 8


def _paired(codes: NDArray[np.int16]) -> Bytes:
    return (codes[:, : BLOCK // 2] | codes[:, BLOCK // 2 :] << 4).astype(np.uint8)
