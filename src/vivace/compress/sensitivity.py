"""How much each part of a model suffers from few bits, measured in deployed numerics, and a recipe made from it.

Each part (`parts.py`; keys and values) stands alone as the
recipe rounds it to the lowest format, and the KL divergence from the whole model is taken on calibration windows, by
the native executor. For the other formats the divergence is scaled by their squared rounding error, weighed by E[x^2]
of the inputs where that is known: to second order KL is quadratic in the change of what a layer puts out. What parts
lose together (`company.py`) scales the losses of all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vivace.compress.allocate import Allocation, Option, allocate
from vivace.compress.company import MovedWeights, company_factors
from vivace.compress.containers import CONTAINERS, container_of
from vivace.compress.device import Device
from vivace.compress.divergence import KeptReference
from vivace.compress.parts import ModelPart, model_parts
from vivace.compress.pipeline import compress_weights
from vivace.compress.progress import Report
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import Floats
from vivace.compress.stored import StoredTensor, StoredWeights, store_floats, store_quantized
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.weights import weight_shapes
from vivace.numerics.kv_formats import KV_FORMATS, holds
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import FLOAT_FORMATS, TensorFormat, WeightSource

FORMATS = (
    TensorFormat.Q4_64,
    TensorFormat.Q4_0,
    TensorFormat.Q5_64,
    TensorFormat.Q5_0,
    TensorFormat.Q6_64,
    TensorFormat.Q6_0,
    TensorFormat.Q8_64,
    TensorFormat.F16,
)
"""What parts may be given, the lowest first: it is the one measured. See `formats_of`."""
NARROW_FORMATS = (TensorFormat.Q4_0, TensorFormat.Q5_0, TensorFormat.Q6_0, TensorFormat.Q8_0, TensorFormat.F16)
_FOUR_BITS = (TensorFormat.Q4_64, TensorFormat.Q4_0)
KV_PART = "kv"  # keys and values, which have no matrices
Importance = Mapping[str, Floats]
_UNREAD = 0.05
_COLLAPSED = 10.0  # times the median of its kind: a part that does not bear few bits (gotcha 2)


@dataclass(frozen=True, slots=True)
class PartSensitivity:
    """One part: its matrices, what each format costs, and whether it stands out from its kind.

    Attributes:
        rows: (begin, end) of its only matrix, or None: all.
        options: the lowest format first; its loss is measured, those of the others are scaled from it, and all by what
            parts lose in company.
        kind_median: median of the lowest format's loss over the parts of the same kind.
        collapses: the loss is more than ten times that median: such a part is kept high whatever the budget.
    """

    name: str
    matrices: tuple[str, ...]
    options: tuple[Option, ...]
    kind_median: float = 0.0
    collapses: bool = False
    rows: tuple[int, int] | None = None

    @property
    def part(self) -> ModelPart:
        """What it is a part of."""
        return ModelPart(self.matrices, self.rows)

    @property
    def bearable(self) -> tuple[Option, ...]:
        """The formats that may be chosen: all, or for a part that collapses those that cost no more than its kind."""
        if not self.collapses:
            return self.options
        borne = tuple(option for option in self.options if option.loss <= self.kind_median)
        return borne or self.options[-1:]

    @property
    def evidence(self) -> str:
        """Why a collapsing part is kept high, in a sentence with its figures."""
        lowest, borne = self.options[0], self.bearable[0]
        times = lowest.loss / max(self.kind_median, 1e-12)
        return (
            f"{self.name}: {lowest.loss:.4f} nats in {lowest.label}, {times:.0f} times the median of its kind "
            f"({self.kind_median:.4f}); {borne.loss:.4f} in {borne.label}"
        )


def formats_of(spec: ModelSpec) -> tuple[TensorFormat, ...]:
    """What parts of a model may be given: a scale for 64 weights is worth its bits; where rows are not wide, for 32."""
    narrow = any(shape[1] % 64 for shape in weight_shapes(spec).values() if len(shape) == 2)
    return NARROW_FORMATS if narrow else FORMATS


def measure_sensitivity(
    spec: ModelSpec,
    weights: WeightSource,
    windows: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
    *,
    importance: Importance | None = None,
    formats: Sequence[TensorFormat] | None = None,
    parts: Mapping[str, ModelPart] | None = None,
    lowest: Callable[[str], Floats] | None = None,
    num_threads: int | None = None,
) -> list[PartSensitivity]:
    """Round each part alone and compare.

    Args:
        spec: what the model is.
        weights: its tensors.
        windows: tokens to compare on; the second half of each counts.
        report: told how far it is.
        importance: E[x^2] of the inputs of matrices by their names (`importance.py`); scales are chosen and errors
            weighed by it, as recipes that calibrate do.
        formats: what parts may be given, the lowest first; None: `formats_of` the model.
        parts: those to measure, as `model_parts` names them; None is all.
        lowest: a matrix as the recipe rounds it to the lowest format (`rounded_lowest`); None: each by itself.
        num_threads: of the executors; None: one for every core.
    """
    graph = build_graph(spec)
    num_blocks = -(-max(len(window) for window in windows) // BLOCK_SIZE)

    def executor(of: WeightSource) -> NativeExecutor:
        return NativeExecutor(graph, of, num_blocks=num_blocks, num_threads=num_threads)

    reference = KeptReference(executor(weights), windows)
    formats = formats or formats_of(spec)
    parts = parts or model_parts(spec)
    found = []
    for done, (name, part) in enumerate(parts.items()):
        report(done, len(parts), f"sensitivity of {name}")
        known = formats if part.rows is None else [format for format in formats if format not in FLOAT_FORMATS]
        versions = {format: _rounded(weights, part, format, importance or {}) for format in known}
        stored, error = versions[formats[0]]
        loss = reference.mean_kl(executor(StoredWeights(_in_place(part, stored, weights, lowest), weights)))
        options = (
            Option(format, sum(tensor.data.size for tensor in version.values()), loss * other / max(error, 1e-30))
            for format, (version, other) in versions.items()
        )
        found.append(PartSensitivity(name, part.matrices, tuple(options), rows=part.rows))
    report(len(parts), len(parts), "what parts lose together")
    rounded = lowest or _rounded_alone(weights, formats[0], importance or {})
    names = {name for part in parts.values() for name in part.matrices}
    factors = company_factors(
        sum(part.options[0].loss for part in found),
        lambda share: reference.mean_kl(executor(MovedWeights(weights, rounded, names, share))),
    )
    return mark_collapsing(unread_rows_at_least([in_company(part, factors) for part in found], spec))


def _rounded_alone(weights: WeightSource, format: TensorFormat, importance: Importance) -> Callable[[str], Floats]:
    return lambda name: _stored(weights.dequantize(name), format, importance.get(name)).dequantize()


def in_company(part: PartSensitivity, factors: Sequence[float]) -> PartSensitivity:
    """A part with its losses scaled by the factors of their bits (`company.py`)."""
    lowest = _bits(part.options[0])
    options = (
        replace(option, loss=option.loss * factors[min(_bits(option) - lowest, len(factors) - 1)])
        for option in part.options
    )
    return replace(part, options=tuple(options))


def _bits(option: Option) -> int:
    format = TensorFormat(option.label)
    return CONTAINERS[format].bits if format in CONTAINERS else 16


def unread_rows_at_least(parts: Sequence[PartSensitivity], spec: ModelSpec) -> list[PartSensitivity]:
    """Bands that the windows never read lose nothing, and other texts read them: a share of the mean row's is taken.

    That share of what a row of the same matrix loses on average, as options have it, is the least that a band is said
    to lose.
    """
    shapes = weight_shapes(spec)
    raised = []
    for part in parts:
        bands = [other for other in parts if other.matrices == part.matrices]
        num_weights = sum(band.part.num_weights(shapes) for band in bands)
        share = _UNREAD * part.part.num_weights(shapes) / num_weights if part.rows is not None else 0.0
        means = [sum(options) for options in zip(*([o.loss for o in band.options] for band in bands), strict=True)]
        options = (
            replace(option, loss=max(option.loss, share * mean))
            for option, mean in zip(part.options, means, strict=True)
        )
        raised.append(replace(part, options=tuple(options)))
    return raised


def rounded_lowest(
    spec: ModelSpec,
    weights: WeightSource,
    recipe: Recipe,
    samples: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
    *,
    device: Device | None = None,
) -> Callable[[str], Floats]:
    """Every matrix as a recipe's folds and scales round it to the lowest format, by name, in the unfolded model.

    Methods save unlike shares of different parts: AWQ much in some, and nothing in the embedding. Codes are the
    nearest, as those of the other formats are, which are scaled from these.
    """
    whole = replace(recipe, rules=(TensorRule("*", formats_of(spec)[0]),), rounding="nearest", tuning=None)
    return compress_weights(spec, weights, whole, samples, report, device=device).in_place_of


def measure_kv(
    spec: ModelSpec, weights: WeightSource, windows: Sequence[Tokens], kv_formats: Sequence[str], num_tokens: int
) -> PartSensitivity:
    """What each way to store keys and values costs, as the part KV_PART; its bytes are those of `num_tokens` tokens.

    Every format that can hold the model's heads is measured; "f16" is taken for lossless.
    """
    graph = build_graph(spec)
    num_blocks = -(-max(len(window) for window in windows) // BLOCK_SIZE)
    reference = KeptReference(NativeExecutor(graph, weights, num_blocks=num_blocks), windows)
    options = []
    for kv_format in kv_formats:
        if not holds(KV_FORMATS[kv_format], spec.attention.head_dim):
            continue
        executor = NativeExecutor(graph, weights, num_blocks=num_blocks, kv_format=kv_format)
        size = executor.bytes_per_block * -(-num_tokens // BLOCK_SIZE)
        options.append(Option(kv_format, size, reference.mean_kl(executor)))
    return PartSensitivity(KV_PART, (), tuple(sorted(options, key=lambda option: option.num_bytes)))


def mixed_recipe(
    spec: ModelSpec,
    sensitivities: Sequence[PartSensitivity],
    bits_per_weight: float | None,
    base: Recipe = PRESETS["int4-awq"],
    *,
    most_ms: float | None = None,
) -> tuple[Recipe, Allocation]:
    """A recipe that gives each part the format that keeps most under a budget of bits, all else as in `base`.

    Args:
        spec: what the model is.
        sensitivities: of all its parts; KV_PART among them takes its share of the budget, and decides `kv_format`.
        bits_per_weight: what matrices may take on average; None is no limit.
        base: whose methods are used.
        most_ms: what formats may add to the quickest step as well; the options must say what they add (`timing.py`).

    Raises:
        ConfigError: the budget is under what the smallest formats take.
    """
    num_weights = count_weights(spec, sensitivities)
    options = [part.bearable for part in sensitivities]
    smallest, largest = (sum(pick(option.num_bytes for option in part) for part in options) for pick in (min, max))
    budget = largest if bits_per_weight is None else int(bits_per_weight * num_weights / 8)
    if budget < smallest:
        least = 8 * smallest / num_weights
        raise ConfigError(
            f"{bits_per_weight:g} bits a weight is too few.",
            f"The smallest layout takes {math.ceil(100 * least) / 100:.2f}.",
        )
    allocation = allocate(options, budget, most_ms)
    rules = tuple(
        TensorRule(name, TensorFormat(option.label), rounding=_rounding_of(option.label, base), rows=_last_row(part))
        for part, option in zip(sensitivities, allocation.chosen, strict=True)
        for name in part.matrices
    )
    chosen = {part.name: option.label for part, option in zip(sensitivities, allocation.chosen, strict=True)}
    bits = 8 * allocation.num_bytes / num_weights if bits_per_weight is None else bits_per_weight
    kv_format = chosen.get(KV_PART, base.kv_format)
    return replace(base, name=f"mixed-{bits:.3g}", rules=rules, kv_format=kv_format), allocation


def _last_row(part: PartSensitivity) -> int | None:
    return None if part.rows is None else part.rows[1]


def _rounding_of(format: str, base: Recipe) -> str | None:
    """The base's, but nearest from five bits on: there GPTQ fits calibration text and loses elsewhere (docs)."""
    return None if format in _FOUR_BITS or base.rounding == "nearest" else "nearest"


def count_weights(spec: ModelSpec, sensitivities: Sequence[PartSensitivity]) -> int:
    """Weights of all matrices of the parts."""
    shapes = weight_shapes(spec)
    return sum(part.part.num_weights(shapes) for part in sensitivities)


def mark_collapsing(parts: Sequence[PartSensitivity]) -> list[PartSensitivity]:
    """Mark parts whose loss is far above the median of their kind; a kind of fewer than three has no outlier."""
    kinds: dict[str, list[float]] = {}
    for part in parts:
        kinds.setdefault(part.name.split(".", 2)[-1], []).append(part.options[0].loss)
    marked = []
    for part in parts:
        losses = kinds[part.name.split(".", 2)[-1]]
        median = float(np.median(losses))
        collapses = len(losses) > 2 and part.options[0].loss > _COLLAPSED * median
        marked.append(replace(part, kind_median=median, collapses=collapses))
    return marked


def _rows(part: ModelPart) -> slice:
    return slice(None) if part.rows is None else slice(*part.rows)


def _in_place(
    part: ModelPart,
    rounded: Mapping[str, StoredTensor],
    weights: WeightSource,
    lowest: Callable[[str], Floats] | None,
) -> Mapping[str, StoredTensor]:
    """The matrices of a part to run: rounded, by the recipe where it has been; other rows as they are."""
    if lowest is None and part.rows is None:
        return rounded
    stored = {}
    for name in part.matrices:
        rows = _rows(part)
        values = rounded[name].dequantize() if lowest is None else lowest(name)[rows]
        if part.rows is not None:
            whole = weights.dequantize(name)
            whole[rows] = values
            values = whole
        stored[name] = store_floats(values, TensorFormat.F32)
    return stored


def _rounded(
    weights: WeightSource, part: ModelPart, format: TensorFormat, importance: Importance
) -> tuple[dict[str, StoredTensor], float]:
    """Matrices in a format, and their squared error relative to their squares, both weighed by importance."""
    stored, error = {}, 0.0
    for name in part.matrices:
        values, weight = weights.dequantize(name)[_rows(part)], importance.get(name)
        stored[name] = _stored(values, format, weight)
        difference = stored[name].dequantize() - values
        per_column, squares = (difference * difference).sum(axis=0), (values * values).sum(axis=0)
        weighed = 1.0 if weight is None else weight
        error += float((per_column * weighed).sum()) / max(float((squares * weighed).sum()), 1e-30)
    return stored, error


def _stored(values: Floats, format: TensorFormat, importance: Floats | None) -> StoredTensor:
    if format not in CONTAINERS or values.shape[1] % 32:
        return store_floats(values, format if format not in CONTAINERS else TensorFormat.F16)
    scheme = container_of(format).scheme()
    rule = "minmax" if importance is None else "mse"
    return store_quantized(quantize_matrix(values, scheme, fit_scales(values, scheme, rule, importance)), format)
