"""How much each part of a model suffers from few bits, measured in deployed numerics, and a recipe made from it.

Each part (a layer's q and k, v, o, gate and up, down; the embedding; the head) is rounded alone and the KL divergence
from the whole model is taken on calibration windows, by the native executor. For the other formats the divergence is
scaled by their squared rounding error: to second order KL is quadratic in the change of weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vivace.compress.allocate import Allocation, Option, allocate
from vivace.compress.containers import container_of
from vivace.compress.pipeline import Report
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.scales import fit_scales
from vivace.compress.stored import StoredTensor, StoredWeights, store_quantized
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens, compare_executors
from vivace.graph.build import build_graph
from vivace.graph.weights import weight_shapes
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import TensorFormat, WeightSource

FORMATS = (TensorFormat.Q4_0, TensorFormat.Q5_0, TensorFormat.Q8_0)  # the lowest first: it is the one measured
_PARTS = (("attn.q", "attn.k"), ("attn.v",), ("attn.o",), ("mlp.gate", "mlp.up"), ("mlp.down",))
_COLLAPSED = 10.0  # times the median of its kind: a part that does not bear few bits (gotcha 2)


@dataclass(frozen=True, slots=True)
class PartSensitivity:
    """One part: its matrices, what each format costs, and whether it stands out from its kind."""

    name: str
    matrices: tuple[str, ...]
    options: tuple[Option, ...]
    collapses: bool = False


def measure_sensitivity(
    spec: ModelSpec,
    weights: WeightSource,
    windows: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
) -> list[PartSensitivity]:
    """Round each part alone and compare.

    Args:
        spec: what the model is.
        weights: its tensors.
        windows: tokens to compare on; the second half of each counts.
        report: told how far it is.
    """
    graph = build_graph(spec)
    num_blocks = -(-max(len(window) for window in windows) // BLOCK_SIZE)
    reference = NativeExecutor(graph, weights, num_blocks=num_blocks)
    parts = model_parts(spec)
    found = []
    for done, (name, matrices) in enumerate(parts.items()):
        report(done, len(parts), f"sensitivity of {name}")
        stored, errors = _rounded(weights, matrices, FORMATS[0])
        candidate = NativeExecutor(graph, StoredWeights(stored, weights), num_blocks=num_blocks)
        loss = max(compare_executors(reference, candidate, windows).mean_kl, 0.0)
        options = [Option(FORMATS[0], sum(tensor.data.size for tensor in stored.values()), loss)]
        for format in FORMATS[1:]:
            higher, higher_errors = _rounded(weights, matrices, format)
            size = sum(tensor.data.size for tensor in higher.values())
            options.append(Option(format, size, loss * higher_errors / max(errors, 1e-30)))
        found.append(PartSensitivity(name, matrices, tuple(options)))
    report(len(parts), len(parts), "sensitivity measured")
    return _marked(found)


def model_parts(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Matrices that are given one format together, by a name for people."""
    parts: dict[str, tuple[str, ...]] = {"embed": ("embed.weight",)}
    for layer in range(spec.num_layers):
        for names in _PARTS:
            label = f"layers.{layer}.{'+'.join(names)}"
            parts[label] = tuple(f"layers.{layer}.{name}.weight" for name in names)
    if "lm_head.weight" in weight_shapes(spec):
        parts["lm_head"] = ("lm_head.weight",)
    return parts


def mixed_recipe(
    spec: ModelSpec, sensitivities: Sequence[PartSensitivity], bits_per_weight: float, base: Recipe = PRESETS["int4"]
) -> tuple[Recipe, Allocation]:
    """A recipe that gives each part the format that keeps most under a budget of bits, all else as in `base`.

    Raises:
        ConfigError: the budget is under what the smallest formats take.
    """
    shapes = weight_shapes(spec)
    num_weights = sum(int(np.prod(shapes[name])) for part in sensitivities for name in part.matrices)
    budget = int(bits_per_weight * num_weights / 8)
    smallest = sum(min(option.num_bytes for option in part.options) for part in sensitivities)
    if budget < smallest:
        least = 8 * smallest / num_weights
        raise ConfigError(
            f"{bits_per_weight:g} bits a weight is too few.", f"The smallest layout takes {least + 0.005:.2f}."
        )
    allocation = allocate([part.options for part in sensitivities], budget)
    rules = tuple(
        TensorRule(name, TensorFormat(option.label))
        for part, option in zip(sensitivities, allocation.chosen, strict=True)
        for name in part.matrices
    )
    return replace(base, name=f"mixed-{bits_per_weight:g}", rules=rules), allocation


def _rounded(
    weights: WeightSource, names: Sequence[str], format: TensorFormat
) -> tuple[dict[str, StoredTensor], float]:
    """Matrices in a format by the rule that needs no data, and their squared error relative to their squares."""
    stored, error = {}, 0.0
    for name in names:
        values = weights.dequantize(name)
        scheme = container_of(format).scheme()
        stored[name] = store_quantized(quantize_matrix(values, scheme, fit_scales(values, scheme, "minmax")), format)
        difference = stored[name].dequantize() - values
        error += float(np.vdot(difference, difference)) / max(float(np.vdot(values, values)), 1e-30)
    return stored, error


def _marked(parts: Sequence[PartSensitivity]) -> list[PartSensitivity]:
    """Mark parts whose loss is far above the median of their kind."""
    kinds: dict[str, list[float]] = {}
    for part in parts:
        kinds.setdefault(part.name.split(".")[-1], []).append(part.options[0].loss)
    return [
        replace(part, collapses=part.options[0].loss > _COLLAPSED * float(np.median(losses)) and len(losses) > 2)
        for part in parts
        for losses in [kinds[part.name.split(".")[-1]]]
    ]
