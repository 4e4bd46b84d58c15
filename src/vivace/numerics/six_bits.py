"""Q6_0: six bits a weight in blocks of 32 under one float16 scale, for rows that the blocks of 256 of Q6_K do not fit.

The layout is ik_llama.cpp's, which has it under the number 133; llama.cpp itself does not read it. A block is a scale,
8 bytes of high bits and 16 bytes of low nibbles. Code i stands for scale * (code - 32); its low bits are a nibble of
byte i % 16, and its two high bits stand in byte i % 8 at bit 4 * (i % 16 // 8) + 2 * (i // 16).
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
BLOCK_BYTES = 26
OFFSET = 32
_LOW = slice(10, 26)
_COLUMNS = np.arange(BLOCK)
_HIGH_BYTE = _COLUMNS % 8
_HIGH_SHIFT = (4 * (_COLUMNS % 16 // 8) + 2 * (_COLUMNS // 16)).astype(np.uint8)


def pack(codes: NDArray[np.int16], scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blocks, uint8 (n, 26), of codes -32 .. 31, int16 (n, 32), and the bytes of their float16 scales, uint8 (n, 2)."""
    raised = (codes + OFFSET).astype(np.uint8)
    high = ((raised >> 4) << _HIGH_SHIFT).reshape(-1, 4, 8)
    low = (raised[:, :16] & 15) | ((raised[:, 16:] & 15) << 4)
    return np.concatenate([scales, np.bitwise_or.reduce(high, axis=1), low], axis=1)


def decode(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blocks, uint8 (n, 26), as float32 (n, 32)."""
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    low = np.concatenate([blocks[:, _LOW] & 15, blocks[:, _LOW] >> 4], axis=1)
    high = (blocks[:, 2:10][:, _HIGH_BYTE] >> _HIGH_SHIFT) & 3
    codes = (low | (high << 4)).astype(np.float32) - np.float32(OFFSET)
    return np.asarray(codes * scales, dtype=np.float32)


def encode(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blocks of float32 (n, 32), rounded to nearest; the value of largest size takes the code -32."""
    extremes = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    halves = (extremes / np.float32(-OFFSET)).astype("<f2")
    scales = halves.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scales == 0, np.float32(0), np.rint(values / scales))
    bounded = np.clip(np.nan_to_num(codes), -OFFSET, OFFSET - 1).astype(np.int16)
    return pack(bounded, halves.view(np.uint8))
