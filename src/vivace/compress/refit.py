"""Scales chosen once more when the codes are there: least squares on the output error, all groups of a row together.

The error tr(D H D^T) is quadratic in the scales of a row too, so that the best ones solve a small system: for groups g
and h of the row, A[g, h] = c_g^T H[g, h] c_h and b[g] = c_g^T (H w)_g. Rules that choose scales beforehand see neither
the codes nor how inputs of different groups move together.
"""

from vivace.compress.arrays import eye_like, namespace, single
from vivace.compress.scales import stored_affine
from vivace.compress.schemes import Affine, Floats, QuantizedMatrix

_RIDGE = 1e-4  # of the mean diagonal, pulling towards the scales as they are: a group of zero codes has none of its own


def refit_scales(start: QuantizedMatrix, matrix: Floats, gram: Floats) -> QuantizedMatrix:
    """The same codes under better scales; the start itself where that lowers no error or its grid has offsets.

    Args:
        start: symmetric codes in groups or one scale a row; scales that rows share are left alone.
        matrix: float32 (out_features, in_features), what they stand for.
        gram: float32 (in_features, in_features), sum of x x^T over the inputs.
    """
    scheme = start.scheme
    if scheme.kind not in ("symmetric", "full_symmetric") or scheme.granularity == "tensor" or scheme.group_rows != 1:
        return start
    rows, columns = matrix.shape
    size = start.scheme.group_size or columns
    count = columns // size
    codes, xp = single(start.codes), namespace(matrix)
    pairs = []
    for group in range(count):
        part = slice(group * size, (group + 1) * size)
        pairs.append(((codes[:, part] @ gram[part]) * codes).reshape(rows, count, size).sum(-1))
    system = xp.stack(pairs, 1)
    wanted = ((matrix @ gram) * codes).reshape(rows, count, size).sum(-1)
    ridge = _RIDGE * xp.einsum("rgg->r", system)[:, None] / count + 1e-12
    system += eye_like(system[0]) * ridge[:, :, None]
    scales = xp.linalg.solve(system, (wanted + ridge * start.affine.scales)[:, :, None])[:, :, 0]
    scales = xp.where(xp.isfinite(scales) & (scales != 0), scales, start.affine.scales)
    found = QuantizedMatrix(start.scheme, start.codes, stored_affine(scales, xp.zeros_like(scales), start.scheme))
    better = _errors(found, matrix, gram) < _errors(start, matrix, gram)
    kept = xp.where(better[:, None], found.affine.scales, start.affine.scales)
    return QuantizedMatrix(start.scheme, start.codes, Affine(kept, start.affine.offsets))


def _errors(found: QuantizedMatrix, matrix: Floats, gram: Floats) -> Floats:
    """Squared output error of each row."""
    change = found.dequantize() - matrix
    errors: Floats = ((change @ gram) * change).sum(-1)
    return errors
