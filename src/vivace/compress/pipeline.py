"""Runs a recipe over a model: layer by layer, from weights in any format to stored bytes in memory.

Owns the order of things (observe, fold, round, go on with the rounded weights); the methods are in their own files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vivace.compress import awq
from vivace.compress.arrays import Array
from vivace.compress.awq import FoldedScales
from vivace.compress.checkpoint import Checkpoint, Progress
from vivace.compress.device import Device, NumpyDevice
from vivace.compress.ends import head_rounding, known_head, round_in_pieces, with_ridge
from vivace.compress.gptq import HessianFactor, factorize
from vivace.compress.hadamard import RotatedWeights, rotated_spec
from vivace.compress.layout import Layout, TensorPlan, plan_layout
from vivace.compress.methods import FOLDS, ROUNDINGS, RoundingTask, round_matrix
from vivace.compress.progress import Lap, Report
from vivace.compress.recipe import ROTATION, Recipe
from vivace.compress.schemes import Floats, QuantizedMatrix
from vivace.compress.statistics import CalibrationWalk, InputStatistics, Statistics, layer_segments
from vivace.compress.stored import StoredTensor, StoredWeights, store_bands, store_floats, store_quantized
from vivace.compress.tuning import Tuning, TuningTask, tuned_weights, without_missing
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear, Op
from vivace.types.errors import ConfigError
from vivace.types.input_scheme import PLAIN_INPUTS, InputScheme
from vivace.types.model import ModelSpec
from vivace.types.run_settings import RunSettings
from vivace.types.weights import WeightSource

_COMPARED_AT_ONCE = 1 << 17  # weights of a matrix and of what was made of it


@dataclass(frozen=True, slots=True)
class TensorOutcome:
    """A tensor after the run: `relative_error` is |W - W'| / |W| in the Frobenius norm, 0 for tensors that were kept.

    After a fold it compares what was rounded, the changed weights; tuning of scales comes later and is not in it.
    """

    plan: TensorPlan
    relative_error: float


@dataclass(frozen=True, slots=True, eq=False)
class CompressedModel:
    """The result in memory: what the model is by now, weights to run or write, and what happened to each tensor.

    `inputs` is what the codes of inputs span (`input_schemes.py`).
    """

    spec: ModelSpec
    recipe: Recipe
    weights: StoredWeights
    outcomes: tuple[TensorOutcome, ...]
    inputs: InputScheme = PLAIN_INPUTS
    tuning: Tuning | None = None
    folds: FoldedScales = field(default_factory=FoldedScales)

    def in_place_of(self, name: str) -> Floats:
        """What a matrix of the source has become, without what folds have moved between it and others."""
        return self.folds.taken_off(name, self.weights.dequantize(name))

    @property
    def run_settings(self) -> RunSettings:
        """How the file is to be run, with what calibration has found about inputs."""
        return replace(self.recipe.run_settings, inputs=self.inputs)


def compress_weights(
    spec: ModelSpec,
    weights: WeightSource,
    recipe: Recipe,
    samples: Sequence[Tokens] = (),
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
    checkpoint: Checkpoint | None = None,
    lap: Lap = lambda stage, name: None,
    tuning_samples: Sequence[Tokens] | None = None,
) -> CompressedModel:
    """Compress a model.

    Args:
        spec: what it is.
        weights: its tensors; stays open and is read again by the result for tensors that are kept.
        recipe: what to do.
        samples: token windows to calibrate on; needed when `recipe.needs_calibration`.
        report: told how far it is.
        device: where the heavy arithmetic runs; numpy when None.
        checkpoint: where progress is kept after every layer, and taken up again; for recipes that calibrate.
        lap: told of every stage that ends.
        tuning_samples: windows to tune scales on, if the recipe does; None: `samples`.

    Raises:
        ConfigError: the recipe does not fit the model, or there are no samples for methods that need them.
    """
    if recipe.needs_calibration and not samples:
        raise ConfigError(f"The recipe {recipe.name!r} needs calibration text.", "Give some, or choose int4-fast.")
    recipe, _ = without_missing(recipe)
    spec, weights = rotated(spec, weights, recipe)
    layout, device = plan_layout(spec, weights, recipe), device or NumpyDevice()
    run = _Run(spec, weights, recipe, layout, device, lap=lap)
    if recipe.needs_calibration:
        run.calibrated(samples, report, checkpoint)
    else:
        run.plain(report)
    found = run.result()
    if recipe.tuning is None:
        return found
    windows = samples if tuning_samples is None else tuning_samples
    task = TuningTask(spec, weights, found.weights, layout, recipe.tuning, windows, recipe.calibration.seed)
    tuned, tuning = tuned_weights(task, device, report, checkpoint)
    return replace(found, weights=tuned, tuning=tuning)


def rotated(spec: ModelSpec, weights: WeightSource, recipe: Recipe) -> tuple[ModelSpec, WeightSource]:
    """What is rounded: the model itself, or turned where the recipe says so."""
    if ROTATION not in recipe.folds:
        return spec, weights
    return rotated_spec(spec), RotatedWeights(spec, weights, recipe.calibration.seed)


class _Run:
    """The state of one compression."""

    def __init__(
        self, spec: ModelSpec, weights: WeightSource, recipe: Recipe, layout: Layout, device: Device, *, lap: Lap
    ) -> None:
        self._device = device
        self._told = lap
        self._spec = spec
        self._graph = build_graph(spec)
        self._source = weights
        self._recipe = recipe
        self._layout = layout
        self._folded: dict[str, Floats] = {}  # weights of the current segment that differ from the source's
        self._cache: dict[str, Floats] = {}  # what the executor has read of the current segment
        self._stored: dict[str, StoredTensor] = {}
        self._errors: dict[str, float] = {}
        self._folds = FoldedScales()
        self._scaled: dict[str, Floats] = {}  # what folds divided the buffers of the current segment by
        self._source_cache: dict[str, Floats] = {}
        self._head = known_head(self._graph, recipe, layout)
        self._last_factor: tuple[InputStatistics, HessianFactor] | None = None

    def plain(self, report: Report) -> None:
        """Methods that look at weights only: one tensor after the other."""
        total = sum(math.prod(plan.shape) for plan in self._layout.values())
        done = 0
        for name, plan in self._layout.items():
            report(done, total, f"rounding {name}")
            self._round(name, None)
            self._lap("round", name)
            done += math.prod(plan.shape)
        report(total, total, "rounded")

    def calibrated(self, samples: Sequence[Tokens], report: Report, checkpoint: Checkpoint | None) -> None:
        """Methods that look at activations: one segment of the op list after the other."""
        walk = CalibrationWalk(self._graph, samples, self._device)
        source = CalibrationWalk(self._graph, samples, self._device) if self._recipe.drift_correction else None
        walks = [walk] if source is None else [walk, source]
        segments = layer_segments(self._graph)
        first = self._taken_up(walks, checkpoint)
        for done, segment in enumerate(segments):
            if done < first:
                continue
            report(done, len(segments), f"calibrating {_segment_name(segment)}")
            self._cache, self._source_cache, self._scaled = {}, {}, {}
            linears = {op.weight: op for op in segment if isinstance(op, Linear) and op.weight.startswith("layers.")}
            statistics = (
                self._observed(walk, segment) if linears and (source is None or self._recipe.channel_folds) else {}
            )
            if source is not None:
                statistics = {}  # of folds only: what follows looks again, behind what is rounded
            for name in _weights_of(segment):  # a linear's bias comes after its weight
                is_head = self._head is not None and name == self._head.weight
                if is_head and segment is not segments[-1]:
                    continue  # an embedding that is the head too: rounded when its inputs are known
                if name not in self._stored and name not in self._errors:
                    linear = linears.get(name)
                    if source is not None and linear is not None and linear.x not in statistics:
                        statistics[linear.x] = self._drifted(walk, source, segment, linear)
                    seen = None if linear is None else statistics[linear.x]
                    if is_head:
                        seen = self._head_inputs(walk, segment)
                    self._round(name, seen)
                    if self._recipe.bias_correction and linear is not None and seen is not None:
                        self._correct_bias(linear, seen)
                    self._lap("round", name)
            self._cache, self._folded = {}, {}
            if segment is not segments[-1]:
                walk.advance(segment, self._weight)
                if source is not None:
                    source.advance(segment, self._source_weight)
                self._lap("advance", _segment_name(segment))
                if checkpoint is not None:
                    buffers = [held for each in walks for held in each.buffers]
                    checkpoint.save(Progress(done + 1, self._stored, self._errors, buffers))
                    self._lap("keep", _segment_name(segment))
        report(len(segments), len(segments), "rounded")

    def _observed(self, walk: CalibrationWalk, segment: Sequence[Op]) -> Statistics:
        """Inputs of a segment's linears, after its folds."""
        statistics = walk.observe(segment, self._weight, self._wants_gram)
        self._lap("observe", _segment_name(segment))
        for method in self._recipe.channel_folds:
            self._fold(method, segment, statistics)
        self._lap("fold", _segment_name(segment))
        return statistics

    def _drifted(
        self, walk: CalibrationWalk, source: CalibrationWalk, segment: Sequence[Op], linear: Linear
    ) -> InputStatistics:
        """Inputs of a linear behind all that is rounded by now, this segment's weights as well, beside the source's."""
        before = segment[: segment.index(linear) + 1]
        wanted = any(self._wants_gram(op.weight) for op in segment if isinstance(op, Linear) and op.x == linear.x)
        scales = self._scaled.get(linear.x)

        def source_inputs(number: int) -> dict[str, Array]:
            rows = source.inputs(number, before, self._source_weight)[linear.x]
            return {linear.x: rows if scales is None else rows / self._device.put(scales)}

        found = walk.observe(
            before, self._weight, lambda name: wanted and name == linear.weight, source_inputs if wanted else None
        )
        self._lap("observe", _segment_name(segment))
        return found[linear.x]

    def _lap(self, stage: str, name: str) -> None:
        self._device.settle()
        self._told(stage, name)

    def _taken_up(self, walks: Sequence[CalibrationWalk], checkpoint: Checkpoint | None) -> int:
        """Segments that an interrupted run has done already."""
        progress = None if checkpoint is None else checkpoint.load()
        if progress is None:
            return 0
        self._stored, self._errors = progress.stored, progress.errors
        batches = len(progress.buffers) // len(walks)
        for number, walk in enumerate(walks):
            walk.resume(progress.buffers[number * batches : (number + 1) * batches])
        return progress.segments

    def result(self) -> CompressedModel:
        outcomes = tuple(TensorOutcome(plan, self._errors.get(name, 0.0)) for name, plan in self._layout.items())
        weights = StoredWeights(self._stored, self._source)
        return CompressedModel(self._spec, self._recipe, weights, outcomes, folds=self._folds)

    def _weight(self, name: str) -> Floats:
        """A weight as the model is to use it by now: stored, folded or still the source's."""
        if name not in self._cache:
            self._cache[name] = self._stored[name].dequantize() if name in self._stored else self._working_copy(name)
        return self._cache[name]

    def _source_weight(self, name: str) -> Floats:
        """A weight of the source, as long as the segment lasts."""
        if name not in self._source_cache:
            self._source_cache[name] = self._source.dequantize(name)
        return self._source_cache[name]

    def _working_copy(self, name: str) -> Floats:
        return self._folded[name] if name in self._folded else self._source.dequantize(name)

    def _wants_gram(self, name: str) -> bool:
        plan = self._layout[name]
        return plan.scheme is not None and self._recipe.needs_gram

    def _fold(self, method: str, segment: Sequence[Op], statistics: Statistics) -> None:
        for site in awq.fold_sites(segment, self._graph):
            plans = [self._layout[name] for name in site.weights]
            schemes = [plan.scheme for plan in plans if plan.scheme is not None]
            if len(schemes) < len(plans) or (self._layout[site.into].format is None):
                continue  # a tensor that is kept as it is cannot take up scales
            matrices = [self._working_copy(name) for name in site.weights]
            if FOLDS[method].needs_gram:
                matrices = [self._device.put(matrix) for matrix in matrices]
            scales = FOLDS[method].scales(site, matrices, schemes, statistics[site.x])
            if scales is not None:
                awq.fold(site, scales, self._working_copy, self._folded.__setitem__)
                self._folds.add(site, scales)
                statistics[site.x].scaled(scales)
                self._scaled[site.x] = scales * self._scaled.get(site.x, np.float32(1))

    def _round(self, name: str, inputs: InputStatistics | None) -> None:
        plan = self._layout[name]
        if plan.format is None:
            self._errors[name] = 0.0
            return
        values = self._working_copy(name)
        self._cache.pop(name, None)
        rows = np.cumsum([piece.shape[0] for piece in plan.pieces])[:-1]
        bands = np.split(values, rows) if plan.bands else [values]
        stored = [self._made(piece, band, inputs) for piece, band in zip(plan.pieces, bands, strict=True)]
        self._stored[name] = store_bands(stored) if plan.bands else stored[0]
        norm = float(np.linalg.norm(values))
        difference = _distance(self._stored[name].dequantize(), values)
        self._errors[name] = difference / norm if norm > 0 else 0.0
        if not math.isfinite(self._errors[name]):
            raise ConfigError(f"The tensor {name} does not survive {plan.format}.", "Keep it as F32 by a rule.")

    def _made(self, plan: TensorPlan, values: Floats, inputs: InputStatistics | None) -> StoredTensor:
        assert plan.format is not None
        if plan.scheme is None:
            return store_floats(values, plan.format)
        return store_quantized(self._quantized(values, plan, inputs), plan.format)

    def _head_inputs(self, walk: CalibrationWalk, segment: Sequence[Op]) -> InputStatistics:
        assert self._head is not None
        weight = self._head.weight
        schemes = (piece.scheme for piece in self._layout[weight].pieces)
        roundings = (head_rounding(self._recipe.rounding, scheme) for scheme in schemes if scheme is not None)
        wanted = any(ROUNDINGS[rounding].needs_gram for rounding in roundings)
        found = walk.observe(segment, self._weight, lambda name: wanted)[self._head.x]
        self._lap("observe", _segment_name(segment))
        return with_ridge(found, weight)

    def _factor(self, inputs: InputStatistics) -> HessianFactor:
        """Linears over one buffer share the factor of their inputs."""
        if self._last_factor is None or self._last_factor[0] is not inputs:
            assert inputs.gram is not None
            self._last_factor = (inputs, factorize(inputs.gram, act_order=self._recipe.act_order))
        return self._last_factor[1]

    def _quantized(self, values: Floats, plan: TensorPlan, inputs: InputStatistics | None) -> QuantizedMatrix:
        assert plan.scheme is not None
        importance = inputs.importance if inputs is not None and self._recipe.importance else None

        def factor() -> HessianFactor:
            assert inputs is not None
            return self._factor(inputs)

        weighed = None if importance is None else self._device.put(importance)
        if not plan.name.startswith("layers."):  # as large as the vocabulary
            is_head = self._head is not None and plan.name == self._head.weight
            rounding = head_rounding(self._recipe.rounding, plan.scheme) if is_head else "nearest"
            task = RoundingTask(values, plan.scheme, self._recipe.scales, weighed, inputs, factor)
            return round_in_pieces(rounding, task, self._device.put)
        placed = self._device.put(values)
        if inputs is not None and inputs.drift is not None:
            placed = inputs.drift.moved(placed)
        task = RoundingTask(placed, plan.scheme, self._recipe.scales, weighed, inputs, factor)
        rounding = plan.rounding or self._recipe.rounding
        if not ROUNDINGS[rounding].needs_gram:
            return round_in_pieces(rounding, task, lambda rows: rows)
        return round_matrix(rounding, task).on_host()

    def _correct_bias(self, linear: Linear, inputs: InputStatistics) -> None:
        """The mean error of a linear's outputs on the calibration text, taken off its bias (Nagel et al., 2019)."""
        if linear.bias is None or self._layout[linear.weight].scheme is None:
            return
        change = self._stored[linear.weight].dequantize() - self._working_copy(linear.weight)
        corrected = self._working_copy(linear.bias) - (change @ inputs.mean).astype(np.float32)
        self._folded[linear.bias] = corrected


def _distance(left: Floats, right: Floats) -> float:
    """The Frobenius norm of a difference, some rows at a time."""
    rows = max(1, _COMPARED_AT_ONCE // max(left[0].size, 1))
    pieces = (slice(start, start + rows) for start in range(0, len(left), rows))
    return math.sqrt(sum(float(np.square(left[piece] - right[piece]).sum(dtype=np.float64)) for piece in pieces))


def _weights_of(segment: Sequence[Op]) -> list[str]:
    """Names of weights and biases that the ops of a segment hold, in order, each once."""
    names = [getattr(op, field, None) for op in segment for field in ("weight", "bias")]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _segment_name(segment: Sequence[Op]) -> str:
    names = _weights_of(segment)
    parts = names[0].split(".") if names else ["the", "rest"]
    return f"layer {parts[1]}" if parts[0] == "layers" else parts[0]
