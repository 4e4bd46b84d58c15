"""Activation clipping, searched: how far the ranges of each linear's inputs are cut, for the least error it makes.

A few outliers spread the codes of a dynamic range; cutting it costs them and serves the many. Which side wins depends
on the linear: for every buffer that linears read, a share of its dynamic range is chosen on calibration windows, by the
squared error of all outputs of those linears. Chapter 18.2.4, activation clipping; the search is that of OmniQuant's
clipping (Shao et al., 2023) over a grid in place of gradients, and for inputs in place of weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vivace.compress.activation_schemes import ActivationScheme
from vivace.compress.activations import InterceptedExecutor, quantize_activations, whole_batch
from vivace.compress.pipeline import Report
from vivace.compress.schemes import Floats
from vivace.execute.score import Tokens
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear
from vivace.types.errors import ConfigError
from vivace.types.weights import WeightSource

RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""Shares of a dynamic range that are tried; the whole range wins a tie."""
_ROWS = 128  # of a window that errors are summed over, spread evenly

Clips = Mapping[str, float]
"""By the name of a buffer that linears read: the share of its dynamic range that codes span."""


@dataclass(slots=True)
class _Errors:
    """Squared errors of outputs by ratio, summed over linears and windows."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(RATIOS))

    @property
    def best(self) -> float:
        return RATIOS[int(np.argmin(self.sums))]


def search_clips(
    graph: Graph,
    weights: WeightSource,
    windows: Sequence[Tokens],
    scheme: ActivationScheme,
    report: Report = lambda done, total, what: None,
) -> dict[str, float]:
    """The ratio of every buffer that linears read.

    Args:
        graph: an op list without fused ops.
        weights: those that will run, rounded already.
        windows: calibration text.
        scheme: dynamic; its own clip is the widest range.
        report: told how far it is.

    Raises:
        ConfigError: the scheme is static, whose observers cut ranges themselves.
    """
    if scheme.mode != "dynamic":
        raise ConfigError(
            "Clipping by search is for dynamic ranges.", "Static ones are cut by their observer: percentile, mse or kl."
        )
    readers: dict[str, list[str]] = {}
    for op in graph.ops:
        if isinstance(op, Linear):
            readers.setdefault(op.x, []).append(op.weight)
    found = {name: _Errors() for name in readers}

    def judge(name: str, rows: Floats) -> Floats:
        few = rows[:: max(1, len(rows) // _ROWS)]
        for number, ratio in enumerate(RATIOS):
            error = quantize_activations(few, replace(scheme, clip=scheme.clip * ratio)) - few
            found[name].sums[number] += sum(float(np.square(error @ read(w).T).sum()) for w in readers[name])
        return rows

    executor = InterceptedExecutor(graph, weights, max(map(len, windows)), judge)
    read = executor.weight
    for done, window in enumerate(windows):
        report(done, len(windows), "searching clips")
        executor.forward(whole_batch(window))
    report(len(windows), len(windows), "clips found")
    return {name: errors.best for name, errors in found.items()}
