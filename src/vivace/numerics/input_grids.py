"""What the native core makes of inputs whose codes span something else than each group's own values.

The twin of native/kernels/grids.inc, code for code and scale for scale: it gives back the float32 values that products
are computed with.
"""

import numpy as np
from numpy.typing import NDArray

from vivace.types.input_scheme import InputGrid

Floats = NDArray[np.float32]
GROUP = 32
HALF = GROUP // 2
FINE_REACH = 119  # the largest magnitude becomes 256 * 119, see quantize_fine in native/kernels/rows.inc


def on_grid(rows: Floats, grid: InputGrid, *, fine: bool) -> Floats:
    """Rows as products read them.

    Args:
        rows: float32 (tokens, width); 32 divides the width, but where all of a row shares a scale in bytes.
        grid: what codes span.
        fine: 12 bits; otherwise bytes.

    Returns:
        float32 of their shape: scale * code, or scale * (code - zero point).
    """
    if not rows.size:
        return rows
    pieces = rows.reshape(len(rows), -1, rows.shape[1] if rows.shape[1] % GROUP and grid.by_row else GROUP)
    low, high = _reach(pieces, grid)
    if grid.is_shifted:
        return _shifted(pieces, low, high, np.float32(grid.top)).reshape(rows.shape)
    largest = np.broadcast_to(np.maximum(-low, high), (*pieces.shape[:2], 1))
    cut = np.clip(pieces, -largest, largest)
    return (fine_values(cut, largest) if fine else coarse_values(cut, largest, grid.top)).reshape(rows.shape)


def _reach(pieces: Floats, grid: InputGrid) -> tuple[Floats, Floats]:
    """Ends of the range of each row (tokens, 1, 1) or group (tokens, groups, 1)."""
    if grid.is_fixed:
        low, high = (np.full((1, 1, 1), end, np.float32) for end in (grid.low, grid.high))
        return low, high
    axes = (1, 2) if grid.by_row else (2,)
    low, high = pieces.min(axis=axes, keepdims=True), pieces.max(axis=axes, keepdims=True)
    clip = np.float32(grid.clip)
    return np.minimum(low, np.float32(0)) * clip, np.maximum(high, np.float32(0)) * clip


def coarse_values(groups: Floats, largest: Floats, top: float) -> Floats:
    """Values (..., 32) as `top` steps either way, up to the largest magnitude (..., 1)."""
    steps = np.float32(top)
    inverse = np.divide(steps, largest, out=np.zeros_like(largest), where=largest > 0)
    values: Floats = np.rint(groups * inverse) * (largest / steps)
    return values


def fine_values(groups: Floats, largest: Floats) -> Floats:
    """Values (..., 32) as 12-bit numbers; columns i and i + 16 share their low bits (native/kernels/calls.h)."""
    inverse = np.divide(np.float32(FINE_REACH), largest, out=np.zeros_like(largest), where=largest > 0)
    wanted = np.rint(groups[..., :HALF] * (np.float32(256) * inverse)).astype(np.int32)
    sixteenths = np.rint(groups[..., HALF:] * (np.float32(16) * inverse)).astype(np.int32)
    nudge = ((sixteenths - wanted + 8) & 15) - 8
    codes = np.concatenate([wanted + nudge, 16 * sixteenths], axis=-1).astype(np.float32)
    values: Floats = codes * (largest / np.float32(256 * FINE_REACH))
    return values


def _shifted(pieces: Floats, low: Floats, high: Floats, top: np.float32) -> Floats:
    """As many steps as symmetric codes have, from `low` to `high`, one of them at 0."""
    width, steps = high - low, np.float32(2) * top
    inverse = np.divide(steps, width, out=np.zeros_like(width), where=width > 0)
    scale = width / steps
    zero_code = np.rint(-low * inverse) - top
    codes = np.clip(np.rint(np.clip(pieces, low, high) * inverse) + zero_code, -top, top)
    values: Floats = (codes - zero_code) * scale
    return values
