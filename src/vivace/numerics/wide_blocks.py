"""Q4_64, Q5_64, Q6_64 and Q8_64: blocks of 64 columns under one float16 scale, a quarter of a bit less than of 32.

A block is a scale s and the codes of two blocks of 32 of the format without its `_64`, as those lie there behind their
own scale. A weight is s times its code. The native core reads a block as two groups of 32 columns of one scale, so that
it is run by the kernel of the narrow format.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.numerics import six_bits

BLOCK, NARROW = 64, 32
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Codes = NDArray[np.int16]


def nibbles(codes: Codes) -> Bytes:
    """Codes 0 .. 15, (n, 32), in pairs: code i in the low half of byte i, code i + 16 in the high half."""
    low, high = codes[:, : NARROW // 2], codes[:, NARROW // 2 :]
    return ((low & 15) | ((high & 15) << 4)).astype(np.uint8)


def fifth_bits(codes: Codes) -> Bytes:
    """Bit 4 of 32 codes as four bytes, code 0 in the lowest bit."""
    return np.packbits(((codes >> 4) & 1).astype(np.uint8), axis=1, bitorder="little")


def _pack_4(codes: Codes) -> Bytes:
    return nibbles(codes + 8)


def _pack_5(codes: Codes) -> Bytes:
    return np.concatenate([fifth_bits(codes + 16), nibbles(codes + 16)], axis=1)


def _pack_6(codes: Codes) -> Bytes:
    return six_bits.pack(codes, np.zeros((len(codes), 2), np.uint8))[:, 2:]


def _pack_8(codes: Codes) -> Bytes:
    return codes.astype(np.int8).view(np.uint8)


@dataclass(frozen=True, slots=True)
class WideBlocks:
    """One width of codes: from `lowest` to `highest`; `pack` lays out those of 32 columns in `payload` bytes."""

    lowest: int
    highest: int
    payload: int
    pack: Callable[[Codes], Bytes]

    @property
    def block_bytes(self) -> int:
        """Bytes of 64 weights."""
        return 2 + 2 * self.payload

    def encode(self, values: Floats) -> Bytes:
        """Rounded to nearest, the value of largest size taking the lowest code: (n, 64) to uint8 (n, block_bytes)."""
        extremes = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
        halves = np.clip(extremes / np.float32(self.lowest), -65504, 65504).astype("<f2")
        divisor = np.where(halves == 0, np.float32(1), halves.astype(np.float32))
        codes = np.clip(np.rint(values / divisor), self.lowest, self.highest).astype(np.int16)
        return self.stored(codes, halves.view(np.uint8))

    def stored(self, codes: Codes, scales: Bytes) -> Bytes:
        """Blocks of codes, (n, 64), and the bytes of their float16 scales, (n, 2)."""
        return np.concatenate([scales, self.pack(codes.reshape(-1, NARROW)).reshape(len(codes), -1)], axis=1)

    def narrow(self, blocks: Bytes) -> Bytes:
        """The same weights as blocks of 32: (n, block_bytes) to (2 n, 2 + payload)."""
        scales = np.repeat(blocks[:, :2], 2, axis=0)
        return np.ascontiguousarray(np.concatenate([scales, blocks[:, 2:].reshape(-1, self.payload)], axis=1))


FOUR = WideBlocks(-8, 7, 16, _pack_4)
FIVE = WideBlocks(-16, 15, 20, _pack_5)
SIX = WideBlocks(-32, 31, 24, _pack_6)
EIGHT = WideBlocks(-127, 127, 32, _pack_8)
