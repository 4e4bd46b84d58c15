"""Writers of GGML's 256-value "K" blocks, by plain rounding between the extremes of each sub-block.

Good enough for files made for tests and benchmarks; a careful quantiser searches for better scales. The layouts are
those of GGML: a super-block of 256 values holds float16 scales over quantised sub-block scales.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def encode_q4_k(blocks: Floats) -> Bytes:
    """Write float32 (n, 256) as Q4_K, uint8 (n, 144): d, dmin, 8 scales and minima of 6 bits, 4-bit codes."""
    header, codes = _scaled_codes(blocks, max_code=15)
    return np.concatenate([header, _pack_nibbles(codes)], axis=1)


def encode_q5_k(blocks: Floats) -> Bytes:
    """Write float32 (n, 256) as Q5_K, uint8 (n, 176): as Q4_K, with the fifth bits of all codes before the rest."""
    header, codes = _scaled_codes(blocks, max_code=31)
    fifth_bits = (codes >> 4) << np.arange(8, dtype=np.uint8)[:, None]  # sub-block s owns bit s of 32 shared bytes
    high = np.bitwise_or.reduce(fifth_bits, axis=1)
    return np.concatenate([header, high, _pack_nibbles(codes)], axis=1)


def encode_q6_k(blocks: Floats) -> Bytes:
    """Write float32 (n, 256) as Q6_K, uint8 (n, 210): low nibbles, high bit pairs, 16 int8 scales, d."""
    groups = blocks.reshape(-1, 16, 16)
    wanted = _signed_extreme(groups) / np.float32(-32.0)  # the value largest in size becomes code -32
    d = (_signed_extreme(wanted) / np.float32(-128.0)).astype("<f2")
    scales = np.clip(np.rint(_divide(wanted, d.astype(np.float32)[:, None])), -128, 127).astype(np.int8)
    steps = d.astype(np.float32)[:, None] * scales
    codes = np.clip(np.rint(_divide(groups, steps[:, :, None])), -32, 31).astype(np.int8) + 32
    quarters = codes.astype(np.uint8).reshape(-1, 2, 4, 32)  # per half of 128: four runs of 32 values
    low = (quarters[:, :, :2] & 15) | ((quarters[:, :, 2:] & 15) << 4)
    pairs = (quarters >> 4) << np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce(pairs, axis=2)
    count = len(blocks)
    parts = [low.reshape(count, 128), high.reshape(count, 64), scales.view(np.uint8), d[:, None].view(np.uint8)]
    return np.concatenate(parts, axis=1)


def _scaled_codes(blocks: Floats, max_code: int) -> tuple[Bytes, Bytes]:
    """Quantise sub-blocks of 32 as scale * code - minimum.

    Returns:
        header uint8 (n, 16): d, dmin and the packed 6-bit scales and minima; codes uint8 (n, 8, 32).
    """
    groups = blocks.reshape(-1, 8, 32)
    minima = np.maximum(-groups.min(axis=2), 0.0)
    scales = (groups.max(axis=2) + minima) / np.float32(max_code)
    d = (scales.max(axis=1) / np.float32(63.0)).astype("<f2")
    dmin = (minima.max(axis=1) / np.float32(63.0)).astype("<f2")
    scale_codes = _six_bits(scales, d)
    minimum_codes = _six_bits(minima, dmin)
    steps = d.astype(np.float32)[:, None] * scale_codes
    offsets = dmin.astype(np.float32)[:, None] * minimum_codes
    codes = np.clip(np.rint(_divide(groups + offsets[:, :, None], steps[:, :, None])), 0, max_code).astype(np.uint8)
    header = [d[:, None].view(np.uint8), dmin[:, None].view(np.uint8), _pack_six_bits(scale_codes, minimum_codes)]
    return np.concatenate(header, axis=1), codes


def _six_bits(values: Floats, unit: NDArray[np.float16]) -> Bytes:
    return np.clip(np.rint(_divide(values, unit.astype(np.float32)[:, None])), 0, 63).astype(np.uint8)


def _pack_six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """Pack 8 scales and 8 minima of 6 bits, uint8 (n, 8) each, into GGML's 12 bytes."""
    first_scales = (scales[:, :4] & 63) | ((scales[:, 4:] >> 4) << 6)
    first_minima = (minima[:, :4] & 63) | ((minima[:, 4:] >> 4) << 6)
    rest = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first_scales, first_minima, rest], axis=1)


def _pack_nibbles(codes: Bytes) -> Bytes:
    """Pack the low 4 bits of codes (n, 8, 32) into (n, 128): even sub-blocks in low nibbles, odd ones in high."""
    pairs = codes.reshape(-1, 4, 2, 32)
    packed = (pairs[:, :, 0] & 15) | ((pairs[:, :, 1] & 15) << 4)
    return packed.astype(np.uint8).reshape(-1, 128)


def _signed_extreme(values: Floats) -> Floats:
    """Along the last axis, the value largest in size, with its sign."""
    index = np.abs(values).argmax(axis=-1)
    return np.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def _divide(values: Floats, divisor: Floats) -> Floats:
    """values / divisor, 0 where the divisor is 0."""
    zeros = np.zeros(np.broadcast_shapes(values.shape, divisor.shape), dtype=np.float32)
    return np.divide(values, divisor, out=zeros, where=divisor != 0)
