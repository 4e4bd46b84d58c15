"""A calibration set and the two halves of traffic, run through a model side by side: ranges of inputs, and regret."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vivace.compress.progress import Report
from vivace.compress.regret import Regret, probe_errors, probed_layers, probes, regret_of
from vivace.compress.schemes import Floats
from vivace.compress.statistics import CalibrationWalk, Statistics, layer_segments
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource

_NARROW = 1.5  # a channel is narrow when traffic's range is this much wider than the calibration's


@dataclass(frozen=True, slots=True)
class InputComparison:
    """See `doctor.Diagnosis` for the figures."""

    overlap: float
    narrow: float
    regret: Regret


def walk_together(
    spec: ModelSpec,
    weights: WeightSource,
    sets: tuple[Sequence[Tokens], ...],
    report: Report,
    *,
    probed: frozenset[int] | None = None,
) -> InputComparison:
    """Run calibration windows and those of both halves of traffic, as many each, layer by layer.

    Args:
        spec: what the model is.
        weights: its tensors.
        sets: calibration, first half, second half.
        report: told how far it is.
        probed: layers whose matrices are rounded to see what is lost; None: as `probed_layers` has them.
    """
    graph = build_graph(spec)
    walks, segments = [CalibrationWalk(graph, windows) for windows in sets], layer_segments(graph)
    layers = probed_layers(spec.num_layers) if probed is None else probed
    ranges: list[list[Floats]] = [[], [], []]
    errors = [np.zeros((0, 2, 2))]
    for done, segment in enumerate(segments[:-1]):
        report(done, len(segments) - 1, "looking at inputs of linears")
        cache: dict[str, Floats] = {}

        def read(name: str, cache: dict[str, Floats] = cache) -> Floats:
            if name not in cache:
                cache[name] = weights.dequantize(name)
            return cache[name]

        names = probes(segment, layers)
        if any(isinstance(op, Linear) for op in segment):
            seen: list[Statistics] = [walk.observe(segment, read, names.__contains__) for walk in walks]
            for found, statistics in zip(ranges, seen, strict=True):
                found.extend(statistics[buffer].largest for buffer in sorted(seen[0]))
            errors.append(probe_errors(names, read, seen[0], (seen[1], seen[2])))
        if segment is not segments[-2]:
            for walk in walks:
                walk.advance(segment, read)
    report(len(segments) - 1, len(segments) - 1, "looked at inputs of linears")
    own, *halves = (np.concatenate(found) for found in ranges)
    within = _overlap(halves[0], halves[1])
    overlap = float(np.mean([_overlap(own, half) for half in halves])) / max(within, 1e-9)
    narrow = float(np.mean([(half > _NARROW * own).mean() for half in halves]))
    return InputComparison(overlap, narrow, regret_of(np.concatenate(errors)))


def _overlap(left: Floats, right: Floats) -> float:
    larger = np.maximum(np.maximum(left, right), 1e-12)
    return float((np.minimum(left, right) / larger).mean())
