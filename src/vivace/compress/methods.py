"""The methods a recipe may name, a row each: what a fold scales, and how a matrix is rounded under its scales.

Owns the tables alone; every method has a file of its own. `smoothquant`, `awq` and `hadamard` change weights before
they are rounded and change no logits; rounding decides over codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.compress.arrays import namespace
from vivace.compress.awq import FoldSite, search_scales
from vivace.compress.descent import refine
from vivace.compress.gptq import HessianFactor, gptq_factored
from vivace.compress.learned import learned_rounding
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.refit import refit_scales
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import Floats, QuantizedMatrix, QuantScheme
from vivace.compress.smoothquant import smoothing_scales
from vivace.compress.statistics import InputStatistics

FindScales = Callable[[FoldSite, Sequence[Floats], Sequence[QuantScheme], InputStatistics], Floats | None]


@dataclass(frozen=True, slots=True)
class Fold:
    """A method that scales channels at fold sites. `needs_gram`: it wants the second moments of inputs."""

    name: str
    scales: FindScales
    needs_gram: bool


@dataclass(frozen=True, slots=True, eq=False)
class RoundingTask:
    """One matrix to round: its values, its grid, a rule of SCALE_RULES, and what calibration knows of its inputs.

    Arrays are of the device's kind. `importance` weighs errors when scales are chosen, or is None; `factor` makes the
    Hessian's factor when asked.
    """

    values: Floats
    scheme: QuantScheme
    rule: str
    importance: Floats | None
    inputs: InputStatistics | None
    factor: Callable[[], HessianFactor]


@dataclass(frozen=True, slots=True)
class Rounding:
    """A way to choose codes. `needs_gram` as in Fold; without calibration every way is rounding to nearest."""

    name: str
    round: Callable[[RoundingTask], QuantizedMatrix]
    needs_gram: bool


def round_matrix(name: str, task: RoundingTask) -> QuantizedMatrix:
    """Round by a row of ROUNDINGS; to nearest where the matrix's inputs were not seen or its grid is of one scale."""
    row = ROUNDINGS[name]
    lacks_gram = task.inputs is None or task.inputs.gram is None or task.scheme.granularity == "tensor"
    return _nearest(task) if row.needs_gram and lacks_gram else row.round(task)


def _nearest(task: RoundingTask) -> QuantizedMatrix:
    affine = fit_scales(task.values, task.scheme, task.rule, task.importance)
    return quantize_matrix(task.values, task.scheme, affine)


def _gptq(task: RoundingTask) -> QuantizedMatrix:
    ones = namespace(task.values).ones_like(task.values[0])
    return gptq_factored(
        task.values, task.factor(), task.scheme, task.rule, ones if task.importance is None else task.importance
    )


def _descent(task: RoundingTask) -> QuantizedMatrix:
    assert task.inputs is not None and task.inputs.gram is not None
    gram, found = task.inputs.gram, _gptq(task)
    found = refine(refit_scales(found, task.values, gram), task.values, gram)
    return refit_scales(found, task.values, gram)


def _learned(task: RoundingTask) -> QuantizedMatrix:
    assert task.inputs is not None and task.inputs.gram is not None
    affine = fit_scales(task.values, task.scheme, task.rule, task.importance)
    return learned_rounding(task.values, task.inputs.gram, task.scheme, affine)


FOLDS: dict[str, Fold] = {
    row.name: row for row in (Fold("awq", search_scales, True), Fold("smoothquant", smoothing_scales, False))
}
"""Channel scalings; "hadamard" is a fold as well, of the whole model at once (`hadamard.py`)."""
ROUNDINGS: dict[str, Rounding] = {
    row.name: row
    for row in (
        Rounding("nearest", _nearest, False),
        Rounding("gptq", _gptq, True),
        Rounding("descent", _descent, True),
        Rounding("learned", _learned, True),
    )
}
