"""Compression in Python, as `vivace compress` has it: a model's name or path in, a checked file out.

    from vivace.compress import compress, foretell

    print(foretell("smollm2-135m", "small.gguf", "int4").sentence())
    made = compress("smollm2-135m", "small.gguf", "int4", calibrate_on=["calibration.txt"])
    print(made.verification.file_bytes, made.verification.agreement.mean_kl)

Nothing here decides: it puts recipe, budget, text and device together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vivace.compress.device import Device, open_device
from vivace.compress.estimate import Estimate, estimate_file
from vivace.compress.estimate_search import estimate_search
from vivace.compress.progress import Report
from vivace.compress.recipe import Recipe
from vivace.compress.recipe_file import find_recipe
from vivace.compress.samples import CalibrationText
from vivace.compress.save import MixBudget, SavedModel, compress_file
from vivace.compress.smallest import parse_bound
from vivace.files.catalogue import resolve
from vivace.types.errors import ConfigError

MIXED = "mixed"
_BASE = "int4-awq"  # of recipes that search for a layout


def compress(
    model: str | Path,
    out: str | Path,
    recipe: str | Path | Recipe = "int4",
    *,
    calibrate_on: Sequence[str | Path] = (),
    bits_per_weight: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: Report = lambda done, total, what: None,
) -> SavedModel:
    """Make a smaller model file and check what was written.

    Args:
        model: a catalogue name, a .gguf file or a Hugging Face folder.
        out: the .gguf file to make, or a compressed-tensors folder (a name without an ending).
        recipe: a preset's name, `smallest-within:ppl+1%`, `mixed` (with `bits_per_weight`), a YAML file or a Recipe.
        calibrate_on: text files, JSONL files or folders; without them the model writes its own text where needed.
        bits_per_weight: of `mixed`.
        device: cpu, cuda, torch or auto.
        overwrite: whether a file at `out` may be replaced.
        report: told (steps done, steps in all, what is done).

    Raises:
        ConfigError: a name, a path or the recipe can never work.
        ModelFileError: the model is damaged, or the result failed its check (and is not kept).
        StorageError: the result cannot be written.
    """
    job = _Job.of(recipe, bits_per_weight, calibrate_on, device)
    return compress_file(
        resolve(str(model)),
        Path(out),
        job.recipe,
        job.text,
        report,
        budget=job.budget,
        overwrite=overwrite,
        device=job.device,
    )


def foretell(
    model: str | Path,
    out: str | Path,
    recipe: str | Path | Recipe = "int4",
    *,
    calibrate_on: Sequence[str | Path] = (),
    bits_per_weight: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Estimate:
    """What `compress` with the same arguments will take: seconds by stage, memory, bytes of the file. Writes nothing.

    Raises:
        ConfigError: a name, a path or the recipe can never work.
        ModelFileError: the model is damaged.
        StorageError: the disk could not hold the result.
    """
    job, path = _Job.of(recipe, bits_per_weight, calibrate_on, device), resolve(str(model))
    if job.budget is None:
        return estimate_file(path, Path(out), job.recipe, job.text, overwrite=overwrite, device=job.device)
    return estimate_search(path, Path(out), job.recipe, job.budget, job.text, overwrite=overwrite, device=job.device)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the arguments mean."""

    recipe: Recipe
    budget: MixBudget | None
    text: CalibrationText
    device: Device

    @staticmethod
    def of(
        recipe: str | Path | Recipe, bits_per_weight: float | None, calibrate_on: Sequence[str | Path], device: str
    ) -> "_Job":
        name = "" if isinstance(recipe, Recipe) else str(recipe)
        within = parse_bound(name)
        if (bits_per_weight is not None) != (name == MIXED):
            raise ConfigError("The recipe 'mixed' and bits_per_weight belong together.", "Give both, such as 5.5 bits.")
        if bits_per_weight is not None and not bits_per_weight > 0:
            raise ConfigError(f"{bits_per_weight:g} bits a weight are asked for.", "Give more than 0, such as 5.5.")
        searches = within is not None or name == MIXED
        budget = MixBudget(bits_per_weight, within=within) if searches else None
        chosen = recipe if isinstance(recipe, Recipe) else find_recipe(_BASE if searches else name)
        text = CalibrationText(tuple(Path(path) for path in calibrate_on))
        return _Job(chosen, budget, text, open_device(device))
