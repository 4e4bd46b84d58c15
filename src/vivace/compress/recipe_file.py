"""Recipes from YAML files: every field checked, every refusal naming it."""

from pathlib import Path
from typing import Any

from vivace.compress.activation_schemes import ActivationScheme
from vivace.compress.recipe import (
    FORMER_NAMES,
    PRESETS,
    THIRDS,
    CalibrationSettings,
    Recipe,
    TensorRule,
    TuningSettings,
)
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat


def find_recipe(name: str) -> Recipe:
    """A preset by name, or the recipe in a YAML file.

    Raises:
        ConfigError: neither, or a file that says something else than a recipe; the message names the field.
    """
    name = FORMER_NAMES.get(name, name)
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}.",
            f"Choose {', '.join(PRESETS)}, mixed, smallest-within:QUALITY, or give a YAML file.",
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
    tuning = fields.pop("tuning", None)
    if tuning is not None:
        tuning = TuningSettings(**_typed(_mapping(tuning, "'tuning'"), _TUNING_FIELDS, "'tuning'"))
    activations = fields.pop("activations", None)
    if activations is not None:
        given = _typed(_mapping(activations, "'activations'"), _ACTIVATION_FIELDS, "'activations'")
        activations = ActivationScheme(**given)
    kv = _typed(_mapping(fields.pop("kv", {}), "'kv'"), {"format": str}, "'kv'")
    if "fold" in fields:  # one name, or a list of them
        folds = fields.pop("fold")
        fields["folds"] = tuple(str(fold) for fold in (folds if isinstance(folds, list) else [folds]) if fold != "none")
    return Recipe(
        rules=tuple(_read_rule(rule) for rule in rules),
        calibration=calibration,
        tuning=tuning,
        activations=activations,
        kv_format=kv.get("format"),
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
    "drift_correction": bool,
    "clip_activations": bool,
}
_INNER = ("tensors", "calibration", "tuning", "activations", "kv")
_RECIPE_NAMES = tuple("fold" if name == "folds" else name for name in _RECIPE_FIELDS) + _INNER
"""As a file spells them."""
_RULE_FIELDS: dict[str, type] = {
    "match": str,
    "format": str,
    "bits": int,
    "group_size": int,
    "group_rows": int,
    "third": str,
    "zero_point": bool,
    "rounding": str,
    "rows": int,
}
_ACTIVATION_FIELDS: dict[str, type] = {
    "bits": int,
    "mode": str,
    "granularity": str,
    "symmetric": bool,
    "observer": str,
    "clip": float,
}
_TUNING_FIELDS: dict[str, type] = {"samples": int, "epochs": int, "rate": float, "norms": bool, "optional": bool}
_CALIBRATION_FIELDS: dict[str, type] = {"samples": int, "tokens": int, "seed": int}


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is not a mapping of names to values.", "See docs/compression.md for a recipe.")
    return {str(key): item for key, item in value.items()}


def _typed(fields: dict[str, object], known: dict[str, type], what: str) -> dict[str, Any]:
    fields = {key: float(v) if type(v) is int and known.get(key) is float else v for key, v in fields.items()}
    for key, value in fields.items():
        if key not in known:
            names = _RECIPE_NAMES if known is _RECIPE_FIELDS else known
            raise ConfigError(f"{what} has a field {key!r}.", f"Known are {', '.join(names)}.")
        if type(value) is not known[key]:
            raise ConfigError(f"{what} has {key}: {value!r}.", f"Give a value of type {known[key].__name__}.")
    return fields
