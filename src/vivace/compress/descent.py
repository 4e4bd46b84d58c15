"""Coordinate descent: codes that GPTQ chose are looked at again, each as if all others were settled.

Behdin et al., "QuantEase" (2023): the output error tr(D G D^T) is quadratic in one column, so its best code is the
nearest to w + d - (D G)_j / G_jj. Every step lowers the error or leaves it; a sweep costs what one product with G does.
"""

from vivace.compress.arrays import contiguous, integers, namespace, on_host, single
from vivace.compress.schemes import Floats, QuantizedMatrix

SWEEPS = 2
_BLOCK_COLUMNS = 128


def refine(start: QuantizedMatrix, matrix: Floats, gram: Floats, sweeps: int = SWEEPS) -> QuantizedMatrix:
    """Lower the output error of a quantised matrix; scales stay as they are.

    Args:
        start: codes to begin with, of any granularity but "tensor".
        matrix: float32 (out_features, in_features), what they stand for.
        gram: float32 (in_features, in_features), sum of x x^T over the inputs.
        sweeps: times that every column is looked at.
    """
    scheme, columns = start.scheme, matrix.shape[1]
    size = scheme.group_size or columns
    scales, offsets = start.affine.scales.T, start.affine.offsets.T  # (groups, out): a column's are contiguous
    xp = namespace(matrix)
    codes = single(contiguous(start.codes.T))
    wanted = contiguous(matrix.T)
    change = contiguous((start.dequantize() - matrix).T)
    slope = gram @ change
    diagonal = on_host(xp.diagonal(gram)).tolist()
    for _ in range(sweeps):
        for begin in range(0, columns, _BLOCK_COLUMNS):
            end = min(begin + _BLOCK_COLUMNS, columns)
            moved = xp.zeros_like(change[begin:end])
            for column in range(begin, end):
                if diagonal[column] <= 0:
                    continue
                scale, offset = scales[column // size], offsets[column // size]
                best = wanted[column] + change[column] - slope[column] / diagonal[column]
                code = xp.clip(xp.round((best - offset) / scale), scheme.low, scheme.high)
                step = code * scale + offset - wanted[column] - change[column]
                codes[column] = code
                change[column] += step
                moved[column - begin] = step
                slope[begin:end] += xp.outer(gram[begin:end, column], step)
            slope[:begin] += gram[:begin, begin:end] @ moved
            slope[end:] += gram[end:, begin:end] @ moved
    return QuantizedMatrix(scheme, integers(contiguous(codes.T)), start.affine)
