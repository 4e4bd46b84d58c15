"""A few seconds of the real work on a small piece of a model: what a compression costs on this machine and device.

Runs the pipeline itself over one layer of each kind, a slice of the embedding and a few windows, with a clock and a
meter of numpy's memory at its stages; `estimate.py` scales what is found. Nothing of it is kept.
"""

import math
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vivace.compress.device import Device
from vivace.compress.input_ranges import with_inputs
from vivace.compress.layout import Layout
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule
from vivace.compress.stored import StoredTensor, StoredWeights
from vivace.execute.score import Tokens
from vivace.graph.weights import weight_shapes
from vivace.numerics.row_bands import first_rows, stored_bytes
from vivace.types.errors import StorageError
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource

_END_WEIGHTS = 1 << 23  # of the slice of embedding and head: arrays that are too large for caches, as the whole is
_METERED_WEIGHTS = 1 << 22  # of the slice that memory is metered on: many of the pieces that are worked on at once
_TOKENS = 2048  # of the windows: one step of the walk
_MOST_KINDS = 3
_BY_TOKENS = ("observe", "advance", "inputs")  # stages that take longer for more text
_DISK_BYTES = 1 << 24

Kind = tuple[object, ...]
"""What decides the cost of a layer: shape, format and grid of each of its matrices, by name."""


@dataclass(frozen=True, slots=True)
class LayerPace:
    """A layer of one kind: seconds a token of the walk, seconds of folds and roundings, bytes above what is held."""

    token_s: float = 0.0
    fixed_s: float = 0.0
    extra_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PipelinePace:
    """What the stages cost.

    Attributes:
        layers: by kind.
        weight_s: of tensors outside layers, by name: seconds a weight.
        weight_bytes: likewise, bytes above what is held.
        token_s: of what comes before the layers, seconds a token.
    """

    layers: dict[Kind, LayerPace] = field(default_factory=dict)
    weight_s: dict[str, float] = field(default_factory=dict)
    weight_bytes: dict[str, float] = field(default_factory=dict)
    token_s: float = 0.0


def layer_kinds(layout: Layout, num_layers: int) -> list[Kind]:
    """The kind of each layer under a layout."""
    found: list[list[object]] = [[] for _ in range(num_layers)]
    for name, plan in layout.items():
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            found[int(layer)].append((part, plan.shape, plan.format, plan.scheme))
    return [tuple(sorted(parts, key=repr)) for parts in found]


def probe_pipeline(
    spec: ModelSpec, weights: WeightSource, recipe: Recipe, layout: Layout, device: Device
) -> PipelinePace:
    """Compress a cut model twice, once for its memory and once for its time.

    Args:
        spec: what the model is, before a rotation.
        weights: its tensors.
        recipe: what is to be done.
        layout: the recipe over the model, after a rotation.
        device: where it will run.
    """
    kinds = layer_kinds(layout, spec.num_layers)
    chosen = [kinds.index(kind) for kind in list(dict.fromkeys(kinds))[:_MOST_KINDS]]
    samples = probe_windows(spec, recipe.calibration) if recipe.reads_text else []
    meter, clock = _Meter(), _Clock()
    for stages, size in ((meter, _METERED_WEIGHTS), (clock, _END_WEIGHTS)):
        rows = min(spec.vocab_size, max(size // spec.hidden_size, 256))
        cut_spec, cut, rules = cut_model(spec, weights, recipe, chosen, rows)
        seen = [window % rows for window in samples]
        stages.begin()
        made = compress_weights(cut_spec, cut, rules, seen, device=device, lap=stages)
        with_inputs(made, seen, device=device, lap=stages)
        stages.end()
        stages.weights = {outcome.plan.name: math.prod(outcome.plan.shape) for outcome in made.outcomes}
    return _pace(clock, meter, [kinds[layer] for layer in chosen], sum(map(len, samples)))


def probe_disk(folder: Path) -> float:
    """Seconds a byte to write and flush where the file will be; the probe's file has no name and leaves nothing.

    Raises:
        StorageError: nothing can be written there.
    """
    block = np.random.default_rng(0).bytes(_DISK_BYTES)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(block)
            file.flush()
            return (time.perf_counter() - started) / _DISK_BYTES
    except OSError as error:
        raise StorageError(
            f"Nothing can be written in {folder}: {error.strerror}.", "Free some space, or choose another OUT."
        ) from None


class _Clock:
    """Seconds of each (stage, name)."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.weights: dict[str, int] = {}
        self._last = 0.0

    def begin(self) -> None:
        self._last = time.perf_counter()

    def end(self) -> None:
        """Nothing is left to stop."""

    def __call__(self, stage: str, name: str) -> None:
        now = time.perf_counter()
        self.seconds[stage, name] = self.seconds.get((stage, name), 0.0) + now - self._last
        self._last = now


class _Meter:
    """The most bytes of numpy's that each stage held above those at the end of the segment before it."""

    def __init__(self) -> None:
        self.extra: dict[str, int] = {}
        self.weights: dict[str, int] = {}
        self._held = 0

    def begin(self) -> None:
        tracemalloc.start()
        self._held = 0

    def end(self) -> None:
        tracemalloc.stop()

    def __call__(self, stage: str, name: str) -> None:
        held, peak = tracemalloc.get_traced_memory()
        label = _label(name)
        self.extra[label] = max(self.extra.get(label, 0), peak - self._held)
        if stage == "advance" or not label.startswith("layer "):
            self._held = held
        tracemalloc.reset_peak()


def _label(name: str) -> str:
    """ "layer 3" of its segment and its tensors; other names as they are."""
    parts = name.split(".")
    return f"layer {parts[1]}" if parts[0] == "layers" else name


def _pace(clock: _Clock, meter: _Meter, kinds: Sequence[Kind], num_tokens: int) -> PipelinePace:
    token_s, fixed_s = [0.0] * len(kinds), [0.0] * len(kinds)
    first_s, weight_s = 0.0, {}
    for (stage, name), seconds in clock.seconds.items():
        label = _label(name)
        if label.startswith("layer "):
            into = token_s if stage in _BY_TOKENS else fixed_s
            into[int(label.split()[1])] += seconds
        elif stage in _BY_TOKENS:
            first_s += seconds
        else:
            weight_s[name] = seconds / clock.weights[name]
    weight_bytes = {name: meter.extra.get(name, 0) / meter.weights[name] for name in weight_s}
    rows = max(num_tokens, 1)
    layers = {
        kind: LayerPace(token_s[i] / rows, fixed_s[i], meter.extra.get(f"layer {i}", 0)) for i, kind in enumerate(kinds)
    }
    return PipelinePace(layers, weight_s, weight_bytes, first_s / rows)


def probe_windows(spec: ModelSpec, settings: CalibrationSettings) -> list[Tokens]:
    """About one step of the walk, of windows as long as the real ones."""
    size = min(settings.tokens, spec.context_length)
    count = min(settings.samples, max(1, _TOKENS // size))
    return list(np.random.default_rng(settings.seed).integers(spec.vocab_size, size=(count, size)).astype(np.int32))


def cut_model(
    spec: ModelSpec, weights: WeightSource, recipe: Recipe, layers: Sequence[int], rows: int
) -> tuple[ModelSpec, StoredWeights, Recipe]:
    """The layers asked for and the first rows of embedding and head as a model of its own, with the rules they have."""
    attention = replace(spec.attention, windows=tuple(spec.attention.windows[layer] for layer in layers))
    cut_spec = replace(spec, num_layers=len(layers), vocab_size=rows, attention=attention)
    tensors, rules = {}, list(_rules(recipe, "lm_head.weight", "lm_head.weight", spec))
    for name, shape in weight_shapes(cut_spec).items():
        source = _name_in_source(name, layers)
        rules += _rules(recipe, name, source, spec)
        info = weights.info(source)
        bands = first_rows(info.row_bands, shape[0])
        raw = weights.raw(source)[: stored_bytes(bands, shape)]
        tensors[name] = StoredTensor(shape, bands[0].format, raw, bands if len(bands) > 1 else ())
    return cut_spec, StoredWeights(tensors), replace(recipe, rules=tuple(rules))


def _rules(recipe: Recipe, name: str, source: str, spec: ModelSpec) -> list[TensorRule]:
    """The rules of a tensor of the model, for its name in the cut one; none when it is kept."""
    return [replace(rule, match=name, third=None) for rule in recipe.rules_of(source, spec.num_layers)]


def _name_in_source(name: str, layers: Sequence[int]) -> str:
    if not name.startswith("layers."):
        return name
    _, layer, part = name.split(".", 2)
    return f"layers.{layers[int(layer)]}.{part}"
