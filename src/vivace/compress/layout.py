"""A recipe applied to a model before anything runs: format, grid and bytes of each matrix, or a refusal in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vivace.compress.containers import FLOAT_FORMATS, KERNELS, container_of
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.schemes import QuantScheme
from vivace.graph.weights import weight_shapes
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat, WeightSource


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to be: `scheme` is None for those stored as floats, `format` None for those kept as they are.

    `note` says in words what had to be changed from what the recipe asked for; `rounding` is its rule's own or None;
    `kept` is the format of the source where it stays.
    """

    name: str
    shape: tuple[int, ...]
    format: TensorFormat | None
    scheme: QuantScheme | None
    num_bytes: int
    note: str = ""
    rounding: str | None = None
    kept: TensorFormat | None = None

    @property
    def kernel(self) -> str:
        """The native kernel that runs the tensor."""
        format = self.format or self.kept
        return KERNELS[format] if format is not None else ""


Layout = Mapping[str, TensorPlan]
ENDS = ("embed.weight", "lm_head.weight")
"""Presets have a rule for either, and models one or both."""


def plan_layout(spec: ModelSpec, weights: WeightSource, recipe: Recipe) -> dict[str, TensorPlan]:
    """Decide over every tensor of a model.

    Args:
        spec: what the model is.
        weights: where the tensors are now.
        recipe: its rules.

    Returns:
        A plan for each tensor, in the order of the source.

    Raises:
        ConfigError: a rule asks for what a tensor's width or a format cannot take, or none matches anything.
    """
    shapes = weight_shapes(spec)
    matrices = [name for name in weights.names() if len(shapes[name]) == 2]
    if all(recipe.rule_of(name, spec.num_layers) is None for name in matrices):
        raise ConfigError(
            f"No rule of the recipe {recipe.name!r} matches a matrix of the model: nothing would be done.",
            f"Matrices have names such as {', '.join(matrices[:3])}.",
        )
    plans = (_plan(name, shapes[name], weights, recipe, spec.num_layers) for name in weights.names())
    return {plan.name: plan for plan in plans}


def idle_rules(recipe: Recipe, names: Iterable[str], num_layers: int) -> list[str]:
    """Patterns of rules that decide over nothing: mistyped, or behind one that takes all. Rules for ends aside."""
    used = {id(recipe.rule_of(name, num_layers)) for name in names}
    seen = set(ENDS)
    idle = []
    for rule in recipe.rules:
        if id(rule) not in used and rule.match not in seen:
            idle.append(rule.match)
        seen.add(rule.match)
    return idle


def _plan(name: str, shape: tuple[int, ...], weights: WeightSource, recipe: Recipe, num_layers: int) -> TensorPlan:
    if len(shape) == 1:  # norms and biases are a thousandth of the bytes and cost nothing as floats
        return TensorPlan(name, shape, TensorFormat.F32, None, num_bytes(TensorFormat.F32, shape))
    rule = recipe.rule_of(name, num_layers)
    if rule is None or rule.format is None:
        kept = weights.info(name)
        return TensorPlan(name, shape, None, None, kept.num_bytes, kept=kept.format)
    if rule.format in FLOAT_FORMATS:
        return TensorPlan(name, shape, rule.format, None, num_bytes(rule.format, shape))
    return _quantized_plan(name, shape, rule.format, rule)


def _quantized_plan(name: str, shape: tuple[int, ...], format: TensorFormat, rule: TensorRule) -> TensorPlan:
    container, columns = container_of(format), shape[1]
    if columns % container.block:
        note = f"rows of {columns} weights are no whole number of blocks of {container.block}: kept as F16"
        return TensorPlan(name, shape, TensorFormat.F16, None, num_bytes(TensorFormat.F16, shape), note)
    size = columns if rule.group_size == 0 else rule.group_size
    if size is not None and columns % size:
        fitting = [n for n in range(container.block, columns + 1, container.block) if columns % n == 0]
        raise ConfigError(
            f"Groups of {size} do not divide the rows of {name} ({columns} weights).",
            f"Choose a group size of {', '.join(map(str, fitting))}, or 0 for one scale a row.",
        )
    scheme = container.scheme(rule.bits, size, zero_point=rule.zero_point, group_rows=rule.group_rows)
    note = ""
    if scheme.bits < container.bits:
        note = (
            f"{scheme.bits}-bit codes stored in {format}: no kernel for {scheme.bits} bits, so the file is no smaller"
        )
    return TensorPlan(name, shape, format, scheme, num_bytes(format, shape), note, rule.rounding)
