"""A recipe applied to a model before anything runs: format, grid and bytes of each matrix, or a refusal in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vivace.compress.containers import KERNELS, container_of
from vivace.compress.recipe import ROTATION, Recipe, TensorRule
from vivace.compress.schemes import QuantScheme
from vivace.graph.weights import weight_shapes
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import BAND_ROWS, FLOAT_FORMATS, RowBand, TensorFormat, WeightSource


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to be: `scheme` is None for those stored as floats, `format` None for those kept as they are.

    `note` says in words what had to be changed from what the recipe asked for; `rounding` is its rule's own or None;
    `kept` is the format of the source where it stays. `bands` are the plans of bands of rows, each with its own shape,
    where there are several; format and scheme are then those of most rows.
    """

    name: str
    shape: tuple[int, ...]
    format: TensorFormat | None
    scheme: QuantScheme | None
    num_bytes: int
    note: str = ""
    rounding: str | None = None
    kept: TensorFormat | None = None
    bands: tuple["TensorPlan", ...] = ()

    @property
    def pieces(self) -> tuple["TensorPlan", ...]:
        """The bands, or the tensor as one."""
        return self.bands or (self,)

    @property
    def row_bands(self) -> tuple[RowBand, ...]:
        """The bands as a file has them; none where all rows are in one format."""
        ends = [sum(band.shape[0] for band in self.bands[: number + 1]) for number in range(len(self.bands))]
        return tuple(
            RowBand(end - band.shape[0], end, band.format)
            for band, end in zip(self.bands, ends, strict=True)
            if band.format is not None
        )

    @property
    def kernel(self) -> str:
        """The native kernel that runs the tensor, or those that run its bands."""
        if self.bands:
            return ", ".join(dict.fromkeys(band.kernel for band in self.bands))
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
    if not any(recipe.rules_of(name, spec.num_layers) for name in matrices):
        raise ConfigError(
            f"No rule of the recipe {recipe.name!r} matches a matrix of the model: nothing would be done.",
            f"Matrices have names such as {', '.join(matrices[:3])}.",
        )
    plans = (_plan(name, shapes[name], weights, recipe, spec.num_layers) for name in weights.names())
    return {plan.name: plan for plan in plans}


def idle_rules(recipe: Recipe, names: Iterable[str], num_layers: int) -> list[str]:
    """Patterns of rules that decide over nothing: mistyped, or behind one that takes all. Rules for ends aside."""
    used = {id(rule) for name in names for rule in recipe.rules_of(name, num_layers)}
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
    rules = recipe.rules_of(name, num_layers)
    if any(rule.rows is not None for rule in rules):
        return _banded_plan(name, shape, rules)
    rule = rules[0] if rules else None
    if rule is None or rule.format is None:
        kept = weights.info(name)
        note = f"{name} is kept in float32: a rotation has changed it" if ROTATION in recipe.folds else ""
        return TensorPlan(name, shape, None, None, kept.num_bytes, note, kept=kept.format)
    return _quantized_or_float(name, shape, rule.format, rule)


def _banded_plan(name: str, shape: tuple[int, ...], rules: Sequence[TensorRule]) -> TensorPlan:
    """Bands of rows, each by a rule; neighbours that come out alike are one."""
    if name.startswith("layers."):
        raise ConfigError(f"A rule divides the rows of {name}.", "'rows' is for embed.weight and lm_head.weight.")
    bands: list[TensorPlan] = []
    begin, previous = 0, None
    for rule in rules:
        end = shape[0] if rule.rows is None else min(rule.rows, shape[0])
        if begin == shape[0]:
            break
        if end <= begin or rule.format is None or (end % BAND_ROWS and end < shape[0]):
            raise ConfigError(
                f"A rule for the first {rule.rows} rows of {name} makes no band.",
                f"Give 'rows' in rising order, as multiples of {BAND_ROWS}, and a format other than KEEP.",
            )
        alike = previous is not None and replace(previous, match=rule.match, rows=rule.rows) == rule
        begin, previous = begin - (bands.pop().shape[0] if alike else 0), rule
        bands.append(_quantized_or_float(name, (end - begin, shape[1]), rule.format, rule))
        begin = end
    if begin < shape[0]:
        raise ConfigError(f"No rule decides over the rows of {name} from {begin} on.", "Add one without 'rows'.")
    return bands[0] if len(bands) == 1 else _joined_plan(name, shape, bands)


def _joined_plan(name: str, shape: tuple[int, ...], bands: Sequence[TensorPlan]) -> TensorPlan:
    main = max(bands, key=lambda band: band.shape[0])
    if any(band.scheme is None or band.format is TensorFormat.N8_0 for band in bands):
        raise ConfigError(
            f"A band of rows of {name} has a format of floats or of two levels.", "Bands hold codes of one level."
        )
    size = sum(band.num_bytes for band in bands)
    note = "; ".join(dict.fromkeys(band.note for band in bands if band.note))
    return TensorPlan(name, shape, main.format, main.scheme, size, note, main.rounding, bands=tuple(bands))


def _quantized_or_float(name: str, shape: tuple[int, ...], format: TensorFormat, rule: TensorRule) -> TensorPlan:
    if format in FLOAT_FORMATS:
        return TensorPlan(name, shape, format, None, num_bytes(format, shape))
    return _quantized_plan(name, shape, format, rule)


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
