"""Rounding to a grid: from weights, a scheme and a rule for scales to codes.

The rules that choose scales are rows of SCALE_RULES in `scales.py`; this module owns the rounding.
"""

from vivace.compress.arrays import integers, namespace
from vivace.compress.schemes import Affine, Floats, QuantizedMatrix, QuantScheme


def round_to_grid(groups: Floats, scheme: QuantScheme, affine: Affine) -> Floats:
    """Codes (as float32) nearest to the weights: Q(x) = round((x - Z) / S), clipped to the scheme's codes.

    Args:
        groups: float32 (rows, groups, columns), see `QuantScheme.grouped`.
        scheme: gives the range of codes.
        affine: scale S and offset Z of each group.

    Chapter 18.2.1; half rounds to even, as numpy and the processors do. Scales are never 0 (`scales.py`).
    """
    codes = groups / affine.scales[:, :, None] if scheme.is_symmetric else groups - affine.offsets[:, :, None]
    if not scheme.is_symmetric:
        codes /= affine.scales[:, :, None]
    xp = namespace(codes)
    xp.round(codes, out=codes)
    bounded: Floats = xp.clip(codes, scheme.low, scheme.high, out=codes)
    return bounded


def quantize_matrix(matrix: Floats, scheme: QuantScheme, affine: Affine) -> QuantizedMatrix:
    """Round a matrix to nearest under given scales.

    Raises:
        ConfigError: the scheme's group size does not divide the rows.
    """
    codes = round_to_grid(scheme.grouped(matrix), scheme, affine)
    return QuantizedMatrix(scheme, integers(codes.reshape(matrix.shape)), affine)
