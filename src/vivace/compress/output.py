"""Where a compression's result goes: paths that can work, a run's workplace, the file or folder, put there in one move.

Owns what is on disk around a run; what is written is decided elsewhere.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from vivace.compress.layout import Layout
from vivace.compress.pipeline import CompressedModel
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.stored import StoredWeights, store_floats
from vivace.files.compressed_writer import ASYMMETRIC, LAYOUTS, norms_as_read, write_compressed_folder
from vivace.files.gguf_model_writer import gguf_model_bytes, write_gguf_model
from vivace.files.gguf_writer import WritableValue
from vivace.files.open import LoadedModel
from vivace.files.run_settings import gguf_notes
from vivace.types.errors import ConfigError, StorageError
from vivace.types.input_scheme import FINE_BITS, TOKEN
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource

_LOCK = "lock"


def workplace_of(out: Path) -> Path:
    """The folder of a run's progress and unfinished files."""
    return out.with_name(f".{out.name}.resume")


def put_in_place(made: Path, out: Path) -> None:
    """One move; a folder that is replaced goes where the made one was, and is deleted with it."""
    if out.is_dir():
        out.rename(made.with_name("replaced"))
    made.replace(out)


@contextmanager
def only_run_into(out: Path) -> Iterator[None]:
    """One run at a time makes a file. The lock is the system's, so that it goes with a process that dies.

    Raises:
        ConfigError: another run is at it.
        StorageError: nothing can be written beside `out`.
    """
    workplace = workplace_of(out)
    lock = FileLock(workplace / _LOCK)
    try:
        workplace.mkdir(exist_ok=True)
        is_ours = _acquired(lock)
    except OSError as error:
        raise StorageError(
            f"{workplace} cannot be used: {error.strerror}.", "Free some space, or choose another OUT."
        ) from None
    if not is_ours or not (workplace / _LOCK).exists():  # the one that had it may have taken the file away
        lock.release()
        raise _busy(out)
    try:
        yield
    finally:
        with suppress(OSError):  # what else is in there is progress, and stays
            (workplace / _LOCK).unlink(missing_ok=True)
            workplace.rmdir()
        lock.release()


def _acquired(lock: FileLock) -> bool:
    with suppress(Timeout):
        lock.acquire(timeout=0)
    return lock.is_locked


def _busy(out: Path) -> ConfigError:
    return ConfigError(f"Another run is making {out}.", "Wait until it is done, stop it, or choose another name.")


@contextmanager
def removed_unless_interrupted(folder: Path) -> Iterator[None]:
    """A run that was stopped from outside leaves its progress; one that is done, or can never work, leaves nothing."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def check_output(source_path: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse an output path before any work is done.

    Raises:
        ConfigError: it is no .gguf name, is the source, exists already, its folder does not, or a run is making it.
    """
    if out.suffix not in (".gguf", ""):
        raise ConfigError(
            f"The output {out} does not end in .gguf.",
            "Compression writes GGUF files, or, to a name without an ending, compressed-tensors folders.",
        )
    if not out.suffix and source_path.is_file():
        raise ConfigError(f"{source_path} is no Hugging Face folder to take settings from.", "End OUT in .gguf.")
    if not out.parent.is_dir() or (out.suffix and out.is_dir()):
        raise ConfigError(f"{out} cannot be a file: its folder is missing, or it is one.", "Make the folder first.")
    if out.exists() and source_path.exists() and out.samefile(source_path):
        raise ConfigError(f"{out} is the model itself.", "Choose another name.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already.", "Choose another name, or allow it to be replaced (--force).")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"The folder {out.parent} is not writable.", "Choose another folder.")
    if (workplace_of(out) / _LOCK).exists():
        lock = FileLock(workplace_of(out) / _LOCK)
        if not _acquired(lock):
            raise _busy(out)
        lock.release()


def for_folder(recipe: Recipe, *, mixes: bool) -> Recipe:
    """Folders quantise linears of layers alone, all alike, with whole zero points; all else stays in 16 bits."""
    formats = {rule.format for rule in recipe.rules if rule.match.startswith(("layers", "*"))}
    if mixes or len(formats) != 1 or not formats <= set(LAYOUTS):
        raise ConfigError(
            "A compressed-tensors folder holds layers of one format.",
            f"Use a recipe with all of them in {' or '.join(LAYOUTS)}, or end OUT in .gguf.",
        )
    scheme = recipe.activations
    is_fine_token = scheme is not None and (scheme.bits, scheme.granularity) == (FINE_BITS, TOKEN)
    if scheme is not None and (recipe.looks_at_inputs or scheme.clip < 1 or is_fine_token):
        raise ConfigError(
            f"A compressed-tensors folder has no place for activations of the scheme {scheme.name}.",
            "End OUT in .gguf, or ask for dynamic ones of 8 bits or fewer, without clips.",
        )
    ends = (TensorRule("embed.weight", TensorFormat.F16), TensorRule("lm_head.weight", TensorFormat.F16))
    layers = (replace(rule, zero_point=rule.format in ASYMMETRIC) for rule in recipe.rules)
    return replace(recipe, rules=(*ends, *layers))


def as_output_holds(out: Path, source: LoadedModel, model: CompressedModel) -> CompressedModel:
    """The model with every tensor as the output can hold it: all of them, but norms that folders store less one.

    A norm that a method has scaled under a half loses its last bits there, so it has to lose them before the check.
    """
    if out.suffix:
        return model
    read = norms_as_read(source.spec.architecture, model.weights)
    held = {name: store_floats(values, TensorFormat.F32) for name, values in read.items()}
    return replace(model, weights=StoredWeights(held, model.weights))


def file_bytes(out: Path, source: LoadedModel, weights: WeightSource, recipe: Recipe, layout: Layout) -> int | None:
    """Bytes of the file that a recipe's layout over `weights` makes, to the byte; None where they cannot be told.

    That is of folders, and where what is found of inputs goes into the file.
    """
    if not out.suffix or recipe.looks_at_inputs:
        return None
    infos = {
        name: TensorInfo(name, plan.shape, plan.format or weights.info(name).format, plan.num_bytes, plan.row_bands)
        for name, plan in layout.items()
    }
    return gguf_model_bytes(source, infos, _notes(source, recipe, recipe.run_settings))


def _notes(source: LoadedModel, recipe: Recipe, settings: RunSettings) -> dict[str, WritableValue]:
    return {"vivace.recipe": recipe.name, "vivace.source": source.name, **gguf_notes(settings)}


def write_output(out: Path, source: LoadedModel, model: CompressedModel) -> None:
    """Write a compressed model as a GGUF file, or as a folder where `out` has no ending.

    Raises:
        StorageError: there is no room, or no right to write.
    """
    notes = _notes(source, model.recipe, model.run_settings)
    try:
        out.parent.mkdir(exist_ok=True)
        if out.suffix:
            write_gguf_model(out, source, model.weights, notes)
        else:
            write_compressed_folder(out, source, model.weights, model.run_settings, tied=model.spec.tied_embeddings)
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written: {error.strerror}.", "Free some space, or choose another."
        ) from None
