"""From a path and a recipe to a file that is checked: the whole of `vivace compress`, without its command line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vivace.compress.checkpoint import Checkpoint, fingerprint, run_key
from vivace.compress.device import Device
from vivace.compress.importance import input_importance
from vivace.compress.input_ranges import with_inputs
from vivace.compress.layout import plan_layout
from vivace.compress.output import (
    as_output_holds,
    check_output,
    for_folder,
    only_run_into,
    put_in_place,
    removed_unless_interrupted,
    workplace_of,
    write_output,
)
from vivace.compress.pipeline import CompressedModel, compress_weights
from vivace.compress.progress import Report
from vivace.compress.recipe import CalibrationSettings, Recipe
from vivace.compress.samples import CalibrationText, draw_samples, own_text
from vivace.compress.search_progress import PARTS, Recall, SearchProgress, place_of_search
from vivace.compress.sensitivity import (
    PartSensitivity,
    formats_of,
    measure_kv,
    measure_sensitivity,
    mixed_recipe,
    rounded_lowest,
)
from vivace.compress.smallest import LayoutSearch, QualityBound, Trial, find_smallest, hold_file_to, measure
from vivace.compress.timing import left_for_formats, time_formats, with_times
from vivace.compress.tuning import tuning_settings, without_missing
from vivace.compress.verify import Verification, verify_file
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel, open_model
from vivace.text.build import build_tokenizer
from vivace.types.kv import KV_FORMAT_NAMES

_CHECK_TOKENS = 96  # of the comparison after saving
SENSITIVITY_SAMPLES, SENSITIVITY_TOKENS = 4, 256
UNSEEN_SAMPLES = 8
CHECK = CalibrationSettings(samples=1, tokens=_CHECK_TOKENS)


@dataclass(frozen=True, slots=True)
class MixBudget:
    """What a mixed layout may cost: bits a weight on average, and milliseconds a token on this machine; None: no limit.

    At least one of the two is given, or `within`: then the smallest layout that keeps to it is looked for. With
    `kv_tokens`, keys and values of so many tokens come out of the same bytes.
    """

    bits_per_weight: float | None = None
    most_ms: float | None = None
    kv_tokens: int | None = None
    within: QualityBound | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """A finished compression: what was done, where it is, and what the check found; `num_samples` it calibrated on."""

    path: Path
    model: CompressedModel
    verification: Verification
    source_bytes: int
    sensitivities: tuple[PartSensitivity, ...] = ()
    trials: tuple[Trial, ...] = ()
    num_samples: int = 0


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
        ConfigError: a path or the recipe can never work, or another run is making the same file.
        ModelFileError: the source is damaged, or the result failed its check (and is not kept).
        StorageError: the result cannot be written.
    """
    check_output(source_path, out, overwrite=overwrite)
    recipe, _ = without_missing(recipe if out.suffix else for_folder(recipe, mixes=budget is not None))
    with only_run_into(out):
        return _compress(source_path, out, recipe, text, report, budget=budget, device=device)


def _compress(
    source_path: Path,
    out: Path,
    recipe: Recipe,
    text: CalibrationText | None,
    report: Report,
    *,
    budget: MixBudget | None,
    device: Device | None,
) -> SavedModel:
    source = open_model(source_path)
    try:
        plan_layout(source.spec, source.weights, recipe), recipe.run_settings  # refuse before any work is done
        tokenizer = None if source.vocabulary is None else build_tokenizer(source.vocabulary)
        reads = recipe.reads_text or budget is not None
        samples = draw_samples(source, tokenizer, recipe.calibration, text, report) if reads else []
        tuning = tuning_settings(recipe.calibration, recipe.tuning) if recipe.tuning else None
        more = draw_samples(source, tokenizer, tuning, text, report) if tuning else []
        workplace, place = workplace_of(out), device.name if device else "numpy"
        origin = fingerprint(source.spec, source.weights) if samples else ""  # without samples nothing is kept

        def compress(recipe: Recipe) -> CompressedModel:
            kept = Checkpoint(workplace, run_key(origin, recipe, [*samples, *more], place))
            made = compress_weights(
                source.spec,
                source.weights,
                recipe,
                samples,
                report,
                device=device,
                checkpoint=kept,
                tuning_samples=more,
            )
            return with_inputs(made, samples, report, device=device)

        with removed_unless_interrupted(workplace):
            searches = budget is not None and budget.within is not None
            unseen = draw_samples(source, tokenizer, _unseen(recipe.calibration), text, report) if searches else []
            whole = run_key(origin, recipe, [*samples, *unseen], place_of_search(place, budget))
            recall = SearchProgress(Checkpoint(workplace, whole))
            job = _Job(source, recipe, samples, unseen, compress, recall, device)
            found, sensitivities, trials = _chosen(job, budget, report)
            model = as_output_holds(out, source, found)
            unchecked = workplace / out.name
            write_output(unchecked, source, model)
            window = samples[0][:_CHECK_TOKENS] if samples else own_text(source, tokenizer, CHECK, report)[0]
            verification = verify_file(unchecked, source, model, window)
            if unseen and budget is not None and budget.within is not None:
                _hold(budget.within, source, unchecked, unseen)
            put_in_place(unchecked, out)
        size = _bytes_of(source)
        return SavedModel(out, model, verification, size, tuple(sensitivities), tuple(trials), len(samples))
    finally:
        source.close()


def _bytes_of(source: LoadedModel) -> int:
    return sum(source.weights.info(name).num_bytes for name in source.weights.names())


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What a run works with: `unseen` are windows that a search measures on, `recall` gives what was found before."""

    source: LoadedModel
    recipe: Recipe
    samples: Sequence[Tokens]
    unseen: Sequence[Tokens]
    compress: Callable[[Recipe], CompressedModel]
    recall: Recall
    device: Device | None = None


def _chosen(
    job: _Job, budget: MixBudget | None, report: Report
) -> tuple[CompressedModel, list[PartSensitivity], list[Trial]]:
    """The model by the recipe, by a mix under the budget, or by a search for the smallest."""
    if budget is None:
        return job.compress(job.recipe), [], []
    source = job.source
    parts = job.recall(PARTS, list[PartSensitivity], lambda: _sensitivities(job, budget, report))
    if budget.within is None:
        return job.compress(_mixed(job, parts, budget)), parts, []
    search = LayoutSearch(source.spec, job.recipe, parts)
    model, trials = find_smallest(
        search, budget.within, job.compress, lambda model: measure(source, model, job.unseen), report, recall=job.recall
    )
    return model, parts, trials


def _unseen(settings: CalibrationSettings) -> CalibrationSettings:
    """Of windows from the same text as the samples, drawn anew, for a search to measure on."""
    return replace(settings, samples=UNSEEN_SAMPLES, seed=settings.seed + 1)


def _hold(bound: QualityBound, source: LoadedModel, path: Path, windows: Sequence[Tokens]) -> None:
    written = open_model(path)
    try:
        hold_file_to(bound, source, written, windows)
    finally:
        written.close()


def _sensitivities(job: _Job, budget: MixBudget, report: Report) -> list[PartSensitivity]:
    """What each part suffers."""
    source, samples = job.source, job.samples
    windows = [sample[:SENSITIVITY_TOKENS] for sample in samples[:SENSITIVITY_SAMPLES]]
    importance = input_importance(source.spec, source.weights, samples, report)
    lowest = rounded_lowest(source.spec, source.weights, job.recipe, samples, report, device=job.device)
    parts = measure_sensitivity(source.spec, source.weights, windows, report, importance=importance, lowest=lowest)
    if budget.kv_tokens is not None:
        parts.append(measure_kv(source.spec, source.weights, windows, KV_FORMAT_NAMES, budget.kv_tokens))
    return parts


def _mixed(job: _Job, parts: Sequence[PartSensitivity], budget: MixBudget) -> Recipe:
    """The recipe that spends the budget best."""
    source, left = job.source, None
    if budget.most_ms is not None:
        most_ms, untimed = budget.most_ms, parts
        parts, left = job.recall("times", tuple[list[PartSensitivity], float], lambda: _timed(source, untimed, most_ms))
    return mixed_recipe(source.spec, parts, budget.bits_per_weight, job.recipe, most_ms=left)[0]


def _timed(
    source: LoadedModel, parts: Sequence[PartSensitivity], most_ms: float
) -> tuple[list[PartSensitivity], float]:
    """Parts with what formats take on this machine, and the milliseconds that are left for formats to take."""
    times = time_formats(source.spec, source.weights, formats_of(source.spec))
    timed = with_times(source.spec, parts, times)
    return list(timed), left_for_formats(times, timed, most_ms)
