"""E[x^2] of the inputs of every linear, from one walk of calibration windows through the model as it is."""

from collections.abc import Sequence

from vivace.compress.progress import Report
from vivace.compress.schemes import Floats
from vivace.compress.statistics import CalibrationWalk, layer_segments
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource


def input_importance(
    spec: ModelSpec,
    weights: WeightSource,
    windows: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
) -> dict[str, Floats]:
    """E[x^2] by the names of the layers' matrices, float32 (in_features,) each.

    Args:
        spec: what the model is.
        weights: its tensors.
        windows: calibration text.
        report: told how far it is.
    """
    graph = build_graph(spec)
    walk, segments = CalibrationWalk(graph, windows), layer_segments(graph)
    found: dict[str, Floats] = {}
    for done, segment in enumerate(segments[:-1]):
        report(done, len(segments) - 1, "importance of inputs")
        cache: dict[str, Floats] = {}

        def read(name: str, cache: dict[str, Floats] = cache) -> Floats:
            if name not in cache:
                cache[name] = weights.dequantize(name)
            return cache[name]

        linears = [op for op in segment if isinstance(op, Linear)]
        if linears:
            statistics = walk.observe(segment, read, lambda name: False)
            found |= {op.weight: statistics[op.x].importance for op in linears}
        walk.advance(segment, read)
    return found
