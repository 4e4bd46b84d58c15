"""Learned rounding: whether each weight goes up or down is found by signed gradient steps on the layer's output error.

Cheng et al., "Optimize weight rounding via signed gradient descent" (AutoRound, 2024): W_q = s clip(round(W / s + V)),
V in [-0.5, 0.5], V -= rate * sign(gradient) with the rate falling to 0, and the best V kept. The error here is that of
one linear on the calibration inputs, tr(D G D^T), whose gradient needs one product with the Gram matrix; the paper's is
of a whole block. Scales are those of the recipe's rule.
"""

import numpy as np

from vivace.compress.arrays import integers, namespace
from vivace.compress.quantizers import round_to_grid
from vivace.compress.schemes import Affine, Floats, QuantizedMatrix, QuantScheme

STEPS = 60
_RATE = 0.5  # the first step's times the number of steps, in codes: of 0.5 to 4 the one with the least error


def learned_rounding(
    matrix: Floats, gram: Floats, scheme: QuantScheme, affine: Affine, steps: int = STEPS
) -> QuantizedMatrix:
    """Quantise a matrix by learned rounding; never worse on `gram` than rounding to nearest.

    Args:
        matrix: float32 (out_features, in_features).
        gram: float32 (in_features, in_features), sum of x x^T over the inputs.
        scheme: the grid; any granularity but "tensor".
        affine: scales and offsets, which stay as they are.
        steps: gradient steps; each costs one product (out, in) x (in, in).
    """
    groups = scheme.grouped(matrix)
    scales = affine.scales[:, :, None]
    exact = (groups - affine.offsets[:, :, None]) / scales
    xp = namespace(matrix)
    shift = xp.zeros_like(groups)
    best, least = round_to_grid(groups, scheme, affine), xp.full_like(matrix[:, 0], np.inf)
    for step in range(steps + 1):
        codes = xp.clip(xp.round(exact + shift), scheme.low, scheme.high)
        change = (codes * scales + affine.offsets[:, :, None] - groups).reshape(matrix.shape)
        slope = change @ gram
        error = xp.einsum("rc,rc->r", slope, change)
        better = error < least
        least[better] = error[better]
        best[better] = codes[better]
        if step < steps:
            direction = xp.sign(slope).reshape(groups.shape) * xp.sign(scales)
            shift = xp.clip(shift - _RATE / steps * (1 - step / steps) * direction, -0.5, 0.5)
    return QuantizedMatrix(scheme, integers(best.reshape(matrix.shape)), affine)
