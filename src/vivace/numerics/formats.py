"""The table of number formats: block geometry, and how to read and write each one with numpy.

A format is a row. Adding one means adding a member to `TensorFormat` and a row here; nothing else branches on formats.
Block formats are GGML's: `block_elements` values of a row share `block_bytes` bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.numerics import k_quants, middle_blocks, nested, six_bits, wide_blocks
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.weights import TensorFormat

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_BLOCKS_AT_ONCE = 1 << 13  # so that what is unpacked on the way stays in the cache


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """One row of the table.

    `decode` maps whole blocks, uint8 (num_blocks, block_bytes), to float32 (num_blocks, block_elements); `encode` is
    its inverse up to rounding.
    """

    name: TensorFormat
    block_elements: int
    block_bytes: int
    decode: Callable[[Bytes], Floats]
    encode: Callable[[Floats], Bytes]

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for one value, scales included."""
        return 8.0 * self.block_bytes / self.block_elements


def num_bytes(format: TensorFormat, shape: tuple[int, ...]) -> int:
    """Bytes that a row-major tensor takes.

    Raises:
        ModelFileError: the last dimension is not a whole number of blocks.
    """
    row = FORMATS[format]
    if shape and shape[-1] % row.block_elements:
        raise ModelFileError(
            f"A row of {shape[-1]} values is not a whole number of {format} blocks of {row.block_elements}.",
            "Choose another format for this tensor, or get the file again.",
        )
    return math.prod(shape) // row.block_elements * row.block_bytes


def dequantize(format: TensorFormat, raw: Bytes, shape: tuple[int, ...]) -> Floats:
    """Read stored bytes as float32.

    Args:
        format: how the bytes are laid out.
        raw: uint8, 1-D, exactly `num_bytes(format, shape)` long.
        shape: row-major shape of the tensor.

    Returns:
        float32 array of `shape`, freshly allocated.

    Raises:
        ModelFileError: the number of bytes does not fit the shape.
    """
    if raw.size != num_bytes(format, shape):
        raise ModelFileError(f"A {format} tensor of shape {shape} cannot have {raw.size} bytes.", "Get the file again.")
    row = FORMATS[format]
    with np.errstate(all="ignore"):  # a damaged scale may be inf or nan: the values say so, no warning is needed
        return row.decode(raw.reshape(-1, row.block_bytes)).reshape(shape)


def quantize(format: TensorFormat, values: NDArray[np.floating]) -> Bytes:
    """Write an array as stored bytes, rounding to nearest.

    Args:
        format: how to lay the bytes out.
        values: array whose last dimension is a whole number of blocks; at least one dimension.

    Returns:
        uint8, 1-D.

    Raises:
        ConfigError: the last dimension is not a whole number of blocks.
    """
    row = FORMATS[format]
    if values.ndim == 0 or values.shape[-1] % row.block_elements:
        raise ConfigError(
            f"Rows of shape {values.shape} cannot be written as {format}: a block has {row.block_elements} values.",
            "Choose another format for this tensor.",
        )
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, row.block_elements)
    return row.encode(blocks).reshape(-1)


def _decode_f32(blocks: Bytes) -> Floats:
    return np.frombuffer(blocks.tobytes(), dtype="<f4").reshape(-1, 1).astype(np.float32)


def _encode_f32(blocks: Floats) -> Bytes:
    return blocks.astype("<f4").view(np.uint8)


def _decode_f16(blocks: Bytes) -> Floats:
    return np.frombuffer(blocks.tobytes(), dtype="<f2").reshape(-1, 1).astype(np.float32)


def _encode_f16(blocks: Floats) -> Bytes:
    return blocks.astype("<f2").view(np.uint8)


def _decode_bf16(blocks: Bytes) -> Floats:
    halves = np.frombuffer(blocks.tobytes(), dtype="<u2").reshape(-1, 1)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _encode_bf16(blocks: Floats) -> Bytes:
    """Round to nearest even; a nan stays a (quiet) nan."""
    bits = blocks.view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint32)
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(blocks), quiet, rounded).astype("<u2").view(np.uint8)


def _gguf_decode(name: str) -> Callable[[Bytes], Floats]:
    def decode(blocks: Bytes) -> Floats:
        from gguf import (  # slow to import, and a start from quantised weights never asks
            GGML_QUANT_SIZES,
            GGMLQuantizationType,
            quants,
        )

        kind = GGMLQuantizationType[name]
        values = np.empty((len(blocks), GGML_QUANT_SIZES[kind][0]), np.float32)
        for start in range(0, len(blocks), _BLOCKS_AT_ONCE):  # as one row each: the library goes 16 rows at a time
            piece = blocks[start : start + _BLOCKS_AT_ONCE]
            read = quants.dequantize(piece.reshape(1, -1), kind)
            values[start : start + len(piece)] = read.reshape(len(piece), -1)
        return values

    return decode


def _gguf_encode(name: str) -> Callable[[Floats], Bytes]:
    def encode(blocks: Floats) -> Bytes:
        from gguf import GGMLQuantizationType, quants  # slow to import, see above

        return np.asarray(quants.quantize(blocks, GGMLQuantizationType[name]), dtype=np.uint8)

    return encode


def _row(name: TensorFormat, elements: int, size: int, encode: Callable[[Floats], Bytes] | None = None) -> NumberFormat:
    return NumberFormat(name, elements, size, _gguf_decode(name.value), encode or _gguf_encode(name.value))


def _wide(name: TensorFormat, blocks: wide_blocks.WideBlocks, narrow: Callable[[Bytes], Floats]) -> NumberFormat:
    def decode(stored: Bytes) -> Floats:
        return narrow(blocks.narrow(stored)).reshape(-1, wide_blocks.BLOCK)

    return NumberFormat(name, wide_blocks.BLOCK, blocks.block_bytes, decode, blocks.encode)


FORMATS: dict[TensorFormat, NumberFormat] = {
    row.name: row
    for row in (
        NumberFormat(TensorFormat.F32, 1, 4, _decode_f32, _encode_f32),
        NumberFormat(TensorFormat.F16, 1, 2, _decode_f16, _encode_f16),
        NumberFormat(TensorFormat.BF16, 1, 2, _decode_bf16, _encode_bf16),
        _row(TensorFormat.Q4_0, 32, 18),
        _row(TensorFormat.Q4_1, 32, 20),
        _row(TensorFormat.Q5_0, 32, 22),
        _row(TensorFormat.Q5_1, 32, 24),
        _row(TensorFormat.Q8_0, 32, 34),
        NumberFormat(TensorFormat.Q6_0, six_bits.BLOCK, six_bits.BLOCK_BYTES, six_bits.decode, six_bits.encode),
        NumberFormat(TensorFormat.N8_0, nested.BLOCK, nested.BLOCK_BYTES, nested.decode, nested.encode),
        _wide(TensorFormat.Q4_64, wide_blocks.FOUR, _gguf_decode("Q4_0")),
        _wide(TensorFormat.Q5_64, wide_blocks.FIVE, _gguf_decode("Q5_0")),
        _wide(TensorFormat.Q6_64, wide_blocks.SIX, six_bits.decode),
        _wide(TensorFormat.Q8_64, wide_blocks.EIGHT, _gguf_decode("Q8_0")),
        NumberFormat(
            TensorFormat.Q8_M,
            middle_blocks.BLOCK,
            middle_blocks.BLOCK_BYTES,
            middle_blocks.decode,
            middle_blocks.encode,
        ),
        _row(TensorFormat.Q4_K, 256, 144, k_quants.encode_q4_k),
        _row(TensorFormat.Q5_K, 256, 176, k_quants.encode_q5_k),
        _row(TensorFormat.Q6_K, 256, 210, k_quants.encode_q6_k),
    )
}
