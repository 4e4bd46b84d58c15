"""GPTQ: round column by column, and let the columns still to come make up for each error.

Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers" (2023): minimises
||X W - X W_q||^2 (chapter 18.2.2) by optimal brain surgery with a fixed order, in blocks, through one Cholesky factor.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.compress.arrays import (
    cholesky,
    contiguous,
    copied,
    double,
    eye_like,
    integers,
    invert_upper,
    namespace,
    on_host,
    single,
)
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import Affine, Floats, QuantizedMatrix, QuantScheme

_BLOCK_COLUMNS = 128
_DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
_LARGEST_DAMPING = 10.0


def gptq(
    matrix: Floats, gram: Floats, scheme: QuantScheme, rule: str, importance: Floats, *, act_order: bool = True
) -> QuantizedMatrix:
    """Quantise a matrix so that its output error on the calibration inputs is small.

    Args:
        matrix: float32 (out_features, in_features).
        gram: float32 (in_features, in_features), sum of x x^T over the inputs.
        scheme: the grid; any granularity but "tensor".
        rule: how scales are chosen, a name of SCALE_RULES.
        importance: float32 (in_features,), E[x^2], for rules that weigh.
        act_order: columns of the largest inputs first, with scales chosen beforehand; else left to right, with each
            group's scales chosen when it is reached.

    Returns:
        The quantised matrix; by plain rounding when the Hessian cannot be inverted even with heavy damping.
    """
    return gptq_factored(matrix, factorize(gram, act_order=act_order), scheme, rule, importance)


@dataclass(frozen=True, slots=True, eq=False)
class HessianFactor:
    """What linears over one buffer share.

    Attributes:
        order: intp (columns,), in which order columns are rounded.
        upper: float32 (columns, columns) in that order: U with U^T U = inverse Hessian; None: there is none.
        in_order: whether `order` is left to right.
    """

    order: NDArray[np.intp]
    upper: Floats | None
    in_order: bool


def factorize(gram: Floats, *, act_order: bool) -> HessianFactor:
    """The order of columns and the factor of the damped Gram matrix, float32 (columns, columns), in that order."""
    order = _order(gram, act_order)
    return HessianFactor(order, _inverse_factor(gram, order), not act_order)


def gptq_factored(
    matrix: Floats, hessian: HessianFactor, scheme: QuantScheme, rule: str, importance: Floats
) -> QuantizedMatrix:
    """`gptq`, where the factor is at hand."""
    columns = matrix.shape[1]
    order, factor = hessian.order, hessian.upper
    if factor is None:
        return quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule, importance))
    size = scheme.group_size or columns
    chosen = _Scales(scheme, rule, importance, size)
    if not hessian.in_order:
        chosen.fit(matrix, 0, columns)
    xp = namespace(matrix)
    work = contiguous(matrix.T[order])  # column c of the matrix is row c here: contiguous
    codes = xp.empty_like(work)
    for start in range(0, columns, _BLOCK_COLUMNS):
        end = min(start + _BLOCK_COLUMNS, columns)
        errors = xp.empty_like(work[start:end])
        for row in range(start, end):
            column = int(order[row])
            if hessian.in_order and column % size == 0:
                _fit_next_group(chosen, work, errors, factor, (start, row, end))
            scale, offset = chosen.of(column)
            code = xp.clip(xp.round((work[row] - offset) / scale), scheme.low, scheme.high)
            codes[row] = code
            error = (work[row] - (code * scale + offset)) / factor[row, row]
            work[row:end] -= xp.outer(factor[row, row:end], error)
            errors[row - start] = error
        work[end:] -= factor[start:end, end:].T @ errors
    restored = xp.empty_like(codes)
    restored[order] = codes
    return QuantizedMatrix(scheme, integers(contiguous(restored.T)), chosen.affine())


class _Scales:
    """Scales and offsets by group, chosen at once or one group after the other."""

    def __init__(self, scheme: QuantScheme, rule: str, importance: Floats, size: int) -> None:
        self._scheme, self._rule, self._importance, self._size = scheme, rule, importance, size
        self._groups: dict[int, Affine] = {}

    def fit(self, matrix: Floats, first: int, last: int) -> None:
        """Choose for columns [first, last), a whole number of groups, held by `matrix`."""
        affine = fit_scales(matrix, self._scheme, self._rule, self._importance[first:last])
        for number in range((last - first) // self._size):
            part = slice(number, number + 1)
            self._groups[first // self._size + number] = Affine(affine.scales[:, part], affine.offsets[:, part])

    def of(self, column: int) -> tuple[Floats, Floats]:
        """Scale and offset of every row in the group of a column."""
        affine = self._groups[column // self._size]
        return affine.scales[:, 0], affine.offsets[:, 0]

    @property
    def size(self) -> int:
        """Columns of a group."""
        return self._size

    def affine(self) -> Affine:
        """Those of all groups."""
        groups = [self._groups[number] for number in sorted(self._groups)]
        xp = namespace(groups[0].scales)
        return Affine(xp.hstack([g.scales for g in groups]), xp.hstack([g.offsets for g in groups]))


def _fit_next_group(chosen: _Scales, work: Floats, errors: Floats, factor: Floats, block: tuple[int, int, int]) -> None:
    """Choose the scales of the group that starts at `row`, from its columns as they stand after all errors so far."""
    start, row, end = block
    last = row + chosen.size
    group = copied(work[row:last])
    if last > end:  # columns of later blocks have not been told of this block's errors yet
        group[end - row :] -= factor[start:row, end:last].T @ errors[: row - start]
    chosen.fit(contiguous(group.T), row, last)


def _order(gram: Floats, act_order: bool) -> NDArray[np.intp]:
    diagonal = on_host(namespace(gram).diagonal(gram))
    return np.argsort(-diagonal, kind="stable") if act_order else np.arange(len(diagonal))


def _inverse_factor(gram: Floats, order: NDArray[np.intp]) -> Floats | None:
    """Upper triangular U with U^T U = inverse of the damped Gram matrix in that order; None if there is none.

    Damping grows tenfold while the matrix is not positive definite (fewer tokens than columns, dead channels).
    """
    xp = namespace(gram)
    ordered = double(gram[order][:, order])
    mean = float(xp.diagonal(ordered).mean())
    if not xp.isfinite(ordered).all() or mean <= 0:
        return None
    damping = _DAMPING
    while damping <= _LARGEST_DAMPING:
        damped = ordered + eye_like(ordered) * damping * mean
        # The Cholesky factor of the reversed matrix, reversed again, is upper triangular: R with R R^T = H. Then
        # U = R^-1, and the inverse of H itself is never needed.
        lower = cholesky(xp.flip(damped, (0, 1)))
        if lower is not None:
            factor: Floats = single(contiguous(invert_upper(xp.flip(lower, (0, 1)))))
            return factor
        damping *= 10
    return None
