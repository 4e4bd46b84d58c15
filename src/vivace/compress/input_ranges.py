"""What a file has to say about the inputs of linears: ranges and clips, found by a walk over the rounded model.

Layer by layer, so that one layer's weights are held. Nothing is rounded on the way but weights: a range that is found
is that of exact inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vivace.compress.activation_schemes import ActivationScheme
from vivace.compress.arrays import on_host
from vivace.compress.clipping import ClipSearch
from vivace.compress.device import Device
from vivace.compress.observers import Observation, find_range
from vivace.compress.pipeline import CompressedModel
from vivace.compress.progress import Lap, Report
from vivace.compress.schemes import Floats
from vivace.compress.statistics import CalibrationWalk, layer_segments
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear
from vivace.types.errors import ConfigError
from vivace.types.input_scheme import InputScheme
from vivace.types.weights import WeightSource

Look = Callable[[str, Floats, Sequence[Floats]], None]
"""Told of a buffer in one batch: its name, its rows, and the weights of the linears that read it."""


def with_inputs(
    model: CompressedModel,
    samples: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
    lap: Lap = lambda stage, name: None,
) -> CompressedModel:
    """The model with the grids that its recipe's activations ask for.

    Args:
        model: rounded.
        samples: token windows; needed where `recipe.looks_at_inputs`.
        report: told how far it is.
        device: where the walk runs; numpy when None.
        lap: told when a segment is done, as the stage "inputs".

    Raises:
        ConfigError: there are no samples to find ranges on.
    """
    scheme = model.recipe.activations
    if scheme is None:
        return model
    graph = build_graph(model.spec)
    ranges: dict[str, tuple[float, float]] = {}
    is_static = scheme.mode == "static"
    clips = {op.x: scheme.clip for op in graph.ops if isinstance(op, Linear) and scheme.clip < 1 and not is_static}
    if model.recipe.looks_at_inputs and not samples:
        raise ConfigError("Ranges and clips of inputs are found on calibration text.", "Give some.")
    if is_static:
        ranges = find_ranges(graph, model.weights, samples, scheme, report, device=device, lap=lap)
    elif model.recipe.clip_activations:
        clips = search_clips(graph, model.weights, samples, scheme, report, device=device, lap=lap)
    return replace(model, inputs=InputScheme(scheme.granularity, scheme.symmetric, _as_stored(clips), ranges))


def find_ranges(
    graph: Graph,
    weights: WeightSource,
    samples: Sequence[Tokens],
    scheme: ActivationScheme,
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
    lap: Lap = lambda stage, name: None,
) -> dict[str, tuple[float, float]]:
    """The static range of every buffer that linears read, by the scheme's observer, as float32 holds it."""
    seen = observe_inputs(graph, weights, samples, report, device=device, lap=lap)
    return {name: stored_range(one, scheme) for name, one in seen.items()}


def stored_range(seen: Observation, scheme: ActivationScheme) -> tuple[float, float]:
    """The range that a scheme's observer finds, with 0 in it, as float32 holds it."""
    low, high = find_range(seen, scheme.observer, scheme.bits)
    return _as_float32(min(low, 0.0)), _as_float32(max(high, 0.0))


def observe_inputs(
    graph: Graph,
    weights: WeightSource,
    samples: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
    lap: Lap = lambda stage, name: None,
) -> dict[str, Observation]:
    """What the inputs of linears are on calibration windows, by the name of the buffer that is read."""
    seen: dict[str, Observation] = {}

    def look(name: str, rows: Floats, _readers: Sequence[Floats]) -> None:
        seen.setdefault(name, Observation()).add(rows)

    for done, total in walk_inputs(graph, weights, samples, look, device=device, lap=lap):
        report(done, total, "observing inputs")
    return seen


def search_clips(
    graph: Graph,
    weights: WeightSource,
    samples: Sequence[Tokens],
    scheme: ActivationScheme,
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
    lap: Lap = lambda stage, name: None,
) -> dict[str, float]:
    """The share of its dynamic range that every buffer keeps, see `clipping.py`.

    Args:
        graph: an op list without fused ops.
        weights: those that will run, rounded already.
        samples: calibration text.
        scheme: dynamic; its own clip is the widest range.
        report: told how far it is.
        device: where the walk runs; numpy when None.
        lap: told when a segment is done.

    Raises:
        ConfigError: the scheme is static, whose observers cut ranges themselves.
    """
    search = ClipSearch(scheme, max(map(len, samples)))
    for done, total in walk_inputs(graph, weights, samples, search.look, device=device, lap=lap):
        report(done, total, "searching clips")
    return search.best()


def walk_inputs(
    graph: Graph,
    weights: WeightSource,
    samples: Sequence[Tokens],
    look: Look,
    *,
    device: Device | None = None,
    lap: Lap = lambda stage, name: None,
) -> Iterator[tuple[int, int]]:
    """Show every input of every linear to `look`, segment by segment; yields (segments done, segments in all)."""
    walk = CalibrationWalk(graph, samples, device)
    segments = layer_segments(graph)
    for done, segment in enumerate(segments):
        yield done, len(segments)
        cache: dict[str, Floats] = {}

        def weight(name: str, cache: dict[str, Floats] = cache) -> Floats:
            if name not in cache:
                cache[name] = weights.dequantize(name)
            return cache[name]

        readers: dict[str, list[str]] = {}
        for op in segment:
            if isinstance(op, Linear):
                readers.setdefault(op.x, []).append(op.weight)
        for number in range(walk.num_batches if readers else 0):
            for name, rows in walk.inputs(number, segment, weight).items():
                look(name, on_host(rows), [weight(reader) for reader in readers[name]])
        if segment is not segments[-1]:
            walk.advance(segment, weight)
        lap("inputs", next((names[0] for names in readers.values()), "inputs"))
    yield len(segments), len(segments)


def _as_float32(value: float) -> float:
    return float(np.float32(value))


def _as_stored(clips: dict[str, float]) -> dict[str, float]:
    return {name: _as_float32(clip) for name, clip in clips.items()}
