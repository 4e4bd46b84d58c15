"""What a calibration set costs: the error it leaves on traffic, over that of as much traffic itself (gotcha 9).

A few matrices are rounded by GPTQ as a run would, once with the second moments of the calibration set, once with those
of half of the traffic, and both are judged on the other half. A set can look unlike traffic and cost nothing, and the
other way round; this looks at what counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.compress.containers import container_of
from vivace.compress.gptq import factorize, gptq_factored
from vivace.compress.schemes import Floats
from vivace.compress.statistics import InputStatistics
from vivace.graph.ops import Linear, Op
from vivace.types.weights import TensorFormat

LAYERS_PROBED = 3
_PROBED = (".attn.o.", ".mlp.gate.", ".mlp.down.")
_SCHEME = container_of(TensorFormat.Q4_0).scheme()


@dataclass(frozen=True, slots=True)
class Regret:
    """How much larger the error on traffic is, over the probed matrices: 0.1 is a tenth more squared output error.

    `mean` is of both ways to halve the traffic, `least` the smaller of the two: what no chance of the halves explains.
    """

    mean: float
    least: float


def probed_layers(num_layers: int) -> frozenset[int]:
    """First, middle and last, as far as they differ."""
    return frozenset(round(place) for place in np.linspace(0, num_layers - 1, LAYERS_PROBED))


def probes(segment: Sequence[Op], layers: frozenset[int]) -> dict[str, str]:
    """The matrices of a segment that are rounded for the probe, and the buffer that each reads."""
    return {
        op.weight: op.x
        for op in segment
        if isinstance(op, Linear)
        and any(part in op.weight for part in _PROBED)
        and int(op.weight.split(".")[1]) in layers
    }


def probe_errors(
    names: dict[str, str],
    read: Callable[[str], Floats],
    calibration: dict[str, InputStatistics],
    halves: tuple[dict[str, InputStatistics], dict[str, InputStatistics]],
) -> NDArray[np.float64]:
    """Squared output errors of the probed matrices of a segment, over the tokens of either half of the traffic.

    Args:
        names: matrices and the buffers they read.
        read: a matrix's values.
        calibration: second moments under the calibration set, by buffer.
        halves: those under each half of the traffic, of as many tokens.

    Returns:
        float64 (matrices, 2, 2): of each matrix, row h is judged on half h; column 0 is fitted on calibration, column 1
        on the other half.
    """
    found = []
    for name, buffer in names.items():
        matrix = read(name)
        if matrix.shape[1] % 32:
            continue
        own, *others = (_error(matrix, statistics[buffer]) for statistics in (calibration, *halves))
        judges = [half[buffer] for half in halves]
        found.append([[_on(own, judges[half]), _on(others[1 - half], judges[half])] for half in range(2)])
    return np.array(found, np.float64).reshape(-1, 2, 2)


def regret_of(errors: NDArray[np.float64]) -> Regret:
    """From the errors of all probed matrices, (n, 2, 2): each counts alike, as the geometric mean of their ratios.

    None at all are no regret.
    """
    if not len(errors):
        return Regret(0.0, 0.0)
    tiny = 1e-30
    ratios = np.exp(np.log((errors[:, :, 0] + tiny) / (errors[:, :, 1] + tiny)).mean(axis=0)) - 1
    return Regret(float(ratios.mean()), float(ratios.min()))


def _error(matrix: Floats, statistics: InputStatistics) -> Floats:
    assert statistics.gram is not None
    factor = factorize(statistics.gram, act_order=True)
    return matrix - gptq_factored(matrix, factor, _SCHEME, "mse", statistics.importance).dequantize()


def _on(error: Floats, judge: InputStatistics) -> float:
    """Mean squared change of what the matrix puts out, over the judge's tokens."""
    assert judge.gram is not None
    return float(((error @ judge.gram) * error).sum()) / max(judge.num_tokens, 1)
