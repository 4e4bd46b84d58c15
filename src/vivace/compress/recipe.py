"""What a compression does, as data: which format each matrix gets, and which methods choose its codes.

A recipe is one of the PRESETS or a YAML file. Every name in it is a row of a table elsewhere: formats of
`containers.py`, scale rules of `scales.py`, methods of `methods.py`.
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vivace.compress.methods import FOLDS, ROUNDINGS
from vivace.compress.scales import SCALE_RULES
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

ROTATION = "hadamard"
FOLD_NAMES = (ROTATION, *FOLDS)
THIRDS = ("first", "middle", "last")


@dataclass(frozen=True, slots=True)
class TensorRule:
    """What happens to the matrices whose name matches.

    Attributes:
        match: a pattern with * over vivace's names (`layers.3.mlp.down.weight`, `embed.weight`, `lm_head.weight`).
        format: the stored format; "KEEP" leaves the source's bytes as they are.
        bits: codes of fewer bits than the format has, or None.
        group_size: weights that share a scale, a multiple of the format's block; None is the block; 0 the whole row.
        third: only layers of the "first", "middle" or "last" third.
    """

    match: str
    format: TensorFormat | None
    bits: int | None = None
    group_size: int | None = None
    third: str | None = None

    def applies(self, name: str, num_layers: int) -> bool:
        """Whether a matrix is this rule's."""
        if not fnmatchcase(name, self.match):
            return False
        if self.third is None:
            return True
        if not name.startswith("layers."):
            return False
        layer = int(name.split(".")[1])
        return THIRDS[min(3 * layer // num_layers, 2)] == self.third


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How much text a method sees: `samples` windows of `tokens` tokens each, drawn with `seed`."""

    samples: int = 16
    tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 5000 or not 16 <= self.tokens <= 8192:
            raise ConfigError(
                f"Calibration on {self.samples} samples of {self.tokens} tokens.", "Use 1 to 5000 of 16 to 8192 tokens."
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole compression. The first rule that applies to a matrix decides; one that no rule matches is kept.

    Attributes:
        name: shown to people and written into the file.
        rules: in order.
        scales: a name of SCALE_RULES.
        folds: names of FOLD_NAMES, in the order they are done; the rotation, if any, is first.
        rounding: a name of ROUNDINGS.
        importance: whether errors are weighed by E[x^2] of the inputs when scales are chosen.
        act_order: see `gptq`.
        bias_correction: linears that have a bias take up the mean error of their outputs.
        calibration: the text that fold, gptq and importance need.
    """

    name: str
    rules: tuple[TensorRule, ...]
    scales: str = "mse"
    folds: tuple[str, ...] = ()
    rounding: str = "nearest"
    importance: bool = False
    act_order: bool = True
    bias_correction: bool = False
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)

    def __post_init__(self) -> None:
        for what, value, known in (
            ("scale rule", self.scales, tuple(SCALE_RULES)),
            *(("fold", fold, FOLD_NAMES) for fold in self.folds),
            ("rounding", self.rounding, tuple(ROUNDINGS)),
        ):
            if value not in known:
                raise ConfigError(f"The recipe asks for the {what} {value!r}.", f"Choose one of {', '.join(known)}.")
        if len(set(self.folds)) < len(self.folds) or ROTATION in self.folds[1:]:
            raise ConfigError(f"The folds {', '.join(self.folds)} cannot be done.", "Each once, hadamard first.")

    @property
    def needs_gram(self) -> bool:
        """Whether any method wants the second moments of inputs."""
        return ROUNDINGS[self.rounding].needs_gram or any(FOLDS[fold].needs_gram for fold in self.channel_folds)

    @property
    def channel_folds(self) -> tuple[str, ...]:
        """The folds that scale channels."""
        return tuple(fold for fold in self.folds if fold != ROTATION)

    @property
    def needs_calibration(self) -> bool:
        """Whether any method looks at activations."""
        return (
            bool(self.channel_folds) or ROUNDINGS[self.rounding].needs_gram or self.importance or self.bias_correction
        )

    def rule_of(self, name: str, num_layers: int) -> TensorRule | None:
        """The rule that decides over a matrix, or None."""
        return next((rule for rule in self.rules if rule.applies(name, num_layers)), None)


def _layers(format: TensorFormat, **more: object) -> tuple[TensorRule, ...]:
    """Embedding and head in 8 bits, layers in `format`."""
    ends = (TensorRule("embed.weight", TensorFormat.Q8_0), TensorRule("lm_head.weight", TensorFormat.Q8_0))
    return (*ends, TensorRule("layers.*", format, **more))  # type: ignore[arg-type]


def _chapter_rules() -> tuple[TensorRule, ...]:
    """Chapter 18.2.3: FP16 embedding and head, INT8 first and last thirds, INT4 middle."""
    return (
        TensorRule("embed.weight", TensorFormat.F16),
        TensorRule("lm_head.weight", TensorFormat.F16),
        TensorRule("layers.*", TensorFormat.Q8_0, third="first"),
        TensorRule("layers.*", TensorFormat.Q4_0, third="middle"),
        TensorRule("layers.*", TensorFormat.Q8_0, third="last"),
    )


PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("int8", _layers(TensorFormat.Q8_0)),
        # Without GPTQ, which lost again what AWQ won in a first trial on little text (docs/compression.md).
        Recipe("int4", _layers(TensorFormat.Q4_0), folds=("awq",), importance=True),
        Recipe("int4-gptq", _layers(TensorFormat.Q4_0), folds=("awq",), rounding="gptq", importance=True),
        Recipe("int4-fast", _layers(TensorFormat.Q4_0)),
        Recipe("int4-nearest", _layers(TensorFormat.Q4_0), scales="minmax"),
        Recipe("int4-asymmetric", _layers(TensorFormat.Q4_1), folds=("awq",), importance=True),
        Recipe("int5", _layers(TensorFormat.Q5_0), folds=("awq",), importance=True),
        Recipe("chapter", _chapter_rules()),
    )
}


def find_recipe(name: str) -> Recipe:
    """A preset by name, or the recipe in a YAML file.

    Raises:
        ConfigError: neither, or a file that says something else than a recipe; the message names the field.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}.", f"Choose {', '.join(PRESETS)}, 'mixed', or give a YAML file."
        )
    import yaml  # type: ignore[import-untyped]  # only a recipe of one's own needs it

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is no YAML file: {reason}.", "See docs/compression.md for a recipe.") from None
    return _read_recipe(value, path.stem)


def _read_recipe(value: object, default_name: str) -> Recipe:
    fields = _mapping(value, "The recipe")
    rules = fields.pop("tensors", None)
    if not isinstance(rules, list) or not rules:
        raise ConfigError("The recipe has no list 'tensors'.", "See docs/compression.md for a recipe.")
    calibration = CalibrationSettings(
        **_typed(_mapping(fields.pop("calibration", {}), "'calibration'"), _CALIBRATION_FIELDS, "'calibration'")
    )
    if "fold" in fields:  # one name, or a list of them
        folds = fields.pop("fold")
        fields["folds"] = tuple(str(fold) for fold in (folds if isinstance(folds, list) else [folds]) if fold != "none")
    return Recipe(
        rules=tuple(_read_rule(rule) for rule in rules),
        calibration=calibration,
        **{"name": default_name, **_typed(fields, _RECIPE_FIELDS, "The recipe")},
    )


def _read_rule(value: object) -> TensorRule:
    fields = _typed(_mapping(value, "A rule of 'tensors'"), _RULE_FIELDS, "A rule of 'tensors'")
    if "match" not in fields or "format" not in fields:
        raise ConfigError("A rule of 'tensors' lacks 'match' or 'format'.", "See docs/compression.md for a recipe.")
    text = fields.pop("format").upper()
    if text != "KEEP" and text not in set(TensorFormat):
        raise ConfigError(f"A rule asks for the format {text!r}.", f"Choose KEEP or {', '.join(TensorFormat)}.")
    if fields.get("third") not in (None, *THIRDS):
        raise ConfigError(f"A rule asks for the third {fields['third']!r}.", f"Choose one of {', '.join(THIRDS)}.")
    return TensorRule(format=None if text == "KEEP" else TensorFormat(text), **fields)


_RECIPE_FIELDS: dict[str, type] = {
    "name": str,
    "scales": str,
    "folds": tuple,
    "rounding": str,
    "importance": bool,
    "act_order": bool,
    "bias_correction": bool,
}
_RULE_FIELDS: dict[str, type] = {"match": str, "format": str, "bits": int, "group_size": int, "third": str}
_CALIBRATION_FIELDS: dict[str, type] = {"samples": int, "tokens": int, "seed": int}


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is not a mapping of names to values.", "See docs/compression.md for a recipe.")
    return {str(key): item for key, item in value.items()}


def _typed(fields: dict[str, object], known: dict[str, type], what: str) -> dict[str, Any]:
    for key, value in fields.items():
        if key not in known:
            raise ConfigError(f"{what} has a field {key!r}.", f"Known are {', '.join(known)}.")
        if type(value) is not known[key]:
            raise ConfigError(f"{what} has {key}: {value!r}.", f"Give a value of type {known[key].__name__}.")
    return fields
