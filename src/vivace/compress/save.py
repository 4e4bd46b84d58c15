"""From a path and a recipe to a file that is checked: the whole of `vivace compress`, without its command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vivace.compress.device import Device
from vivace.compress.importance import input_importance
from vivace.compress.layout import plan_layout
from vivace.compress.pipeline import CompressedModel, Report, compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe
from vivace.compress.samples import CalibrationText, draw_samples, own_text
from vivace.compress.sensitivity import FORMATS, PartSensitivity, measure_kv, measure_sensitivity, mixed_recipe
from vivace.compress.timing import left_for_formats, time_formats, with_times
from vivace.compress.verify import Verification, verify_file
from vivace.execute.score import Tokens
from vivace.files.gguf_model_writer import write_gguf_model
from vivace.files.gguf_writer import WritableValue
from vivace.files.open import LoadedModel, open_model
from vivace.files.run_settings import gguf_notes
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError, StorageError
from vivace.types.kv import KV_FORMAT_NAMES

_CHECK_TOKENS = 96  # of the comparison after saving
_SENSITIVITY_SAMPLES, _SENSITIVITY_TOKENS = 2, 256
_CHECK = CalibrationSettings(samples=1, tokens=_CHECK_TOKENS)


@dataclass(frozen=True, slots=True)
class MixBudget:
    """What a mixed layout may cost: bits a weight on average, and milliseconds a token on this machine; None: no limit.

    At least one of the two is given. With `kv_tokens`, keys and values of so many tokens come out of the same bytes.
    """

    bits_per_weight: float | None = None
    most_ms: float | None = None
    kv_tokens: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """A finished compression: what was done, where it is, and what the check found."""

    path: Path
    model: CompressedModel
    verification: Verification
    source_bytes: int
    sensitivities: tuple[PartSensitivity, ...] = ()


def compress_file(
    source_path: Path,
    out: Path,
    recipe: Recipe,
    text: CalibrationText | None = None,
    report: Report = lambda done, total, what: None,
    *,
    budget: MixBudget | None = None,
    overwrite: bool = False,
    device: Device | None = None,
) -> SavedModel:
    """Compress a model file or folder into a GGUF file, and check what was written.

    Args:
        source_path: a .gguf file or a Hugging Face folder.
        out: the file to make, ending in .gguf; it appears whole or not at all.
        recipe: what to do.
        text: calibration text; the model writes its own when it is needed and none is given.
        report: told how far it is.
        budget: measure what each part suffers and mix formats under this, in place of the recipe's own rules.
        overwrite: whether a file at `out` may be replaced.
        device: where the heavy arithmetic runs; numpy when None.

    Raises:
        ConfigError: a path or the recipe can never work.
        ModelFileError: the source is damaged, or the result failed its check (and is not kept).
        StorageError: the result cannot be written.
    """
    check_output(source_path, out, overwrite=overwrite)
    source = open_model(source_path)
    try:
        plan_layout(source.spec, source.weights, recipe), recipe.run_settings  # refuse before any work is done
        tokenizer = None if source.vocabulary is None else build_tokenizer(source.vocabulary)
        samples = draw_samples(source, tokenizer, recipe.calibration, text, report) if recipe.needs_calibration else []
        sensitivities: list[PartSensitivity] = []
        if budget is not None:
            sensitivities, recipe = _mixed(source, recipe, samples, budget, report)
        model = compress_weights(source.spec, source.weights, recipe, samples, report, device=device)
        unchecked = out.with_name(f".{out.stem}.{os.getpid()}.gguf")
        try:
            _write(unchecked, source, model)
            window = samples[0][:_CHECK_TOKENS] if samples else own_text(source, tokenizer, _CHECK, report)[0]
            verification = verify_file(unchecked, source, model, window)
            unchecked.replace(out)
        finally:
            unchecked.unlink(missing_ok=True)
        source_bytes = sum(source.weights.info(name).num_bytes for name in source.weights.names())
        return SavedModel(out, model, verification, source_bytes, tuple(sensitivities))
    finally:
        source.close()


def _mixed(
    source: LoadedModel, recipe: Recipe, samples: Sequence[Tokens], budget: MixBudget, report: Report
) -> tuple[list[PartSensitivity], Recipe]:
    """What each part suffers, and the recipe that spends the budget best."""
    windows = [sample[:_SENSITIVITY_TOKENS] for sample in samples[:_SENSITIVITY_SAMPLES]]
    importance = input_importance(source.spec, source.weights, samples, report)
    parts = measure_sensitivity(source.spec, source.weights, windows, report, importance=importance)
    if budget.kv_tokens is not None:
        parts.append(measure_kv(source.spec, source.weights, windows, KV_FORMAT_NAMES, budget.kv_tokens))
    left = None
    if budget.most_ms is not None:
        times = time_formats(source.spec, source.weights, FORMATS)
        parts = with_times(source.spec, parts, times)
        left = left_for_formats(times, parts, budget.most_ms)
    return parts, mixed_recipe(source.spec, parts, budget.bits_per_weight, recipe, most_ms=left)[0]


def check_output(source_path: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse an output path before any work is done.

    Raises:
        ConfigError: it is no .gguf name, is the source, exists already, or its folder does not.
    """
    if out.suffix != ".gguf":
        raise ConfigError(f"The output {out} does not end in .gguf.", "Compression writes GGUF files.")
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigError(f"{out} cannot be a file: its folder is missing, or it is one.", "Make the folder first.")
    if out.exists() and source_path.exists() and out.samefile(source_path):
        raise ConfigError(f"{out} is the model itself.", "Choose another name.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already.", "Choose another name, or allow it to be replaced (--force).")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"The folder {out.parent} is not writable.", "Choose another folder.")


def _write(out: Path, source: LoadedModel, model: CompressedModel) -> None:
    notes: dict[str, WritableValue] = {"vivace.recipe": model.recipe.name, "vivace.source": source.name}
    notes |= gguf_notes(model.recipe.run_settings)
    try:
        write_gguf_model(out, source, model.weights, notes)
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written: {error.strerror}.", "Free some space, or choose another."
        ) from None
