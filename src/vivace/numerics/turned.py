"""Turned numbers: eight bits, every 64 columns turned by a Hadamard matrix first. The twin of native/kernels/turn.inc.

(x H) (w H)^T = x w^T for an orthonormal H, so linears over turned weights and turned inputs give what they gave; but
what stands out in one column is spread over 64, and neither a row of weights nor 64 columns of inputs have a scale
that one column decides. Ashkboos et al., "QuaRot" (2024), whose rotations at run time these are, in blocks; nothing is
folded into a model, so that any architecture can run so.
"""

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ConfigError

Floats = NDArray[np.float32]
TURN = 64
TOP = np.float32(127)


def turn(rows: Floats) -> Floats:
    """Rows times sqrt(64) H, 64 columns at a time, float32 of their shape: sums and differences in the core's order.

    Raises:
        ConfigError: 64 does not divide the width.
    """
    if rows.shape[-1] % TURN:
        raise ConfigError(f"Rows of {rows.shape[-1]} columns are no whole number of groups of {TURN}.")
    groups = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, TURN)
    stride = 1
    while stride < TURN:
        pairs = groups.reshape(-1, TURN // (2 * stride), 2, stride)
        groups = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        stride *= 2
    return groups.reshape(rows.shape)


def to_int8_turned(rows: Floats) -> Floats:
    """Rows as linears over turned weights see them, turned back: float32 of their shape."""
    codes, scales = codes_of(turn(rows).reshape(-1, TURN))
    return turn((codes * (scales / np.float32(64))).reshape(rows.shape))


def requantized(weight: Floats) -> Floats:
    """A matrix as it runs when its file's format is given up for turned codes, turned back: float32 (out, in).

    Raises:
        ConfigError: 64 does not divide its columns.
    """
    codes, scales = codes_of(turn(weight))
    return turn(codes * (scales / np.float32(64)))


def codes_of(rows: Floats) -> tuple[Floats, Floats]:
    """127 steps either way, whole numbers in float32, and the step of each row (n, 1)."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    inverse = np.divide(TOP, largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(rows * inverse), largest / TOP
