"""Drift: behind rounded layers a linear reads other inputs than in the source, and its weights are moved to make up.

Li et al., "GPTAQ: efficient finetuning-free quantization for asymmetric calibration" (2025) asks for the least of
||X W^T - X' W_q^T||^2, X the inputs in the source and X' those behind what is rounded already. In real numbers the
answer is W + W (C - H) (H + k)^-1 with H = X'^T X', C = X^T X' and a ridge k; it is then rounded on H like any matrix.
Here k is found by halves: fitted on one half of the tokens, judged on the other, and not to move is among the choices.
"""

from dataclasses import dataclass, field

from vivace.compress.arrays import Array, contiguous, eye_like, namespace
from vivace.compress.schemes import Floats

RIDGES = (0.03, 0.3, 3.0)  # of the mean of the diagonal of half the tokens' H


@dataclass(slots=True)
class DriftSums:
    """What is known of the inputs of one linear, by halves of the tokens.

    Attributes:
        grams: float32 (width, width) each, sum of x' x'^T.
        shifts: float32 (width, width) each, sum of (x - x') x'^T.
    """

    grams: list[Array] = field(default_factory=list)
    shifts: list[Array] = field(default_factory=list)

    def add(self, rows: Floats, source_rows: Floats) -> Floats:
        """Count the rows of one batch, (tokens, width) both; returns the batch's Gram matrix."""
        middle = len(rows) // 2
        products = []
        for half in (slice(None, middle), slice(middle, None)):
            now, change = rows[half], source_rows[half] - rows[half]
            products.append((now.T @ now, change.T @ now))
        if not self.grams:
            self.grams, self.shifts = (list(sums) for sums in zip(*products, strict=True))
        else:
            for number, (gram, shift) in enumerate(products):
                self.grams[number] += gram
                self.shifts[number] += shift
        total: Floats = products[0][0] + products[1][0]
        return total

    def moved(self, matrix: Floats) -> Floats:
        """The matrix whose outputs on the drifted inputs are nearest to the source's; itself where nothing is gained.

        Args:
            matrix: float32 (out_features, width).
        """
        first, second = self.grams
        mean = float(namespace(first).diagonal(first).mean())
        if not mean > 0:
            return matrix
        wanted, judged = matrix @ self.shifts[0], matrix @ self.shifts[1]
        best, least = None, 0.0
        for ridge in RIDGES:
            step = _solve(first, ridge * mean, wanted)
            error = float((step @ second * step).sum()) - 2 * float((step * judged).sum())
            if error < least:
                best, least = ridge, error
        if best is None:
            return matrix
        moved: Floats = matrix + _solve(first + second, best * mean, wanted + judged)
        return moved


def _solve(gram: Floats, ridge: float, wanted: Floats) -> Floats:
    """`wanted` (gram + ridge)^-1."""
    solved: Floats = contiguous(namespace(gram).linalg.solve(gram + ridge * eye_like(gram), wanted.T).T)
    return solved
