"""Opens a model from a path, whatever kind of file it is, and checks it whole before anything runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from vivace.files.gguf_model import open_gguf_model
from vivace.files.gguf_vocabulary import read_vocabulary
from vivace.files.run_settings import folder_run_settings, gguf_run_settings
from vivace.types.errors import ModelFileError
from vivace.types.model import ModelSpec
from vivace.types.run_settings import RunSettings
from vivace.types.vocabulary import Vocabulary
from vivace.types.weights import WeightSource


class LoadedModel:
    """An open model: numbers, weights and vocabulary.

    Args:
        path: the file or folder it came from.
        spec: what the model is.
        weights: owns the mapped files; valid until `close`.
        name: a short name for people and APIs.
        vocabulary_reader: reads the vocabulary when it is first asked for.
        run_settings: how the file asks to be run.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        weights: WeightSource,
        name: str,
        vocabulary_reader: Callable[[], Vocabulary | None],
        *,
        run_settings: RunSettings | None = None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.weights = weights
        self.name = name
        self.run_settings = run_settings or RunSettings()
        self._vocabulary_reader = vocabulary_reader

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """What the file says about text, read when first asked for; None when it says nothing.

        Raises:
            ModelFileError: it says something contradictory.
            UnsupportedModelError: it names a kind of tokenizer vivace does not know.
        """
        return self._vocabulary_reader()

    def close(self) -> None:
        """Release the mapped files; read the vocabulary before."""
        self.weights.close()


def open_model(path: Path) -> LoadedModel:
    """Open a `.gguf` file (whole, or the first part of a split one) or a Hugging Face folder.

    Raises:
        ModelFileError: nothing is there, it is no model, it is damaged, or tensors and sizes disagree.
        UnsupportedModelError: a sound model of a kind vivace does not run.
    """
    if not path.exists():
        raise ModelFileError(f"{path} does not exist.", "Check the path, or see `vivace models list` for names.")
    return _open_folder(path) if path.is_dir() else _open_gguf(path)


def _open_gguf(path: Path) -> LoadedModel:
    spec, weights, metadata = open_gguf_model(path)
    with _closing_on_failure(weights):
        settings = gguf_run_settings(metadata)
    return LoadedModel(
        path, spec, weights, path.stem, lambda: read_vocabulary(metadata, spec.vocab_size), run_settings=settings
    )


def _open_folder(path: Path) -> LoadedModel:
    if not (path / "config.json").exists():
        inside = sorted(path.glob("*.gguf"))
        hint = f"Give the file inside it: {inside[0]}." if inside else "Give a .gguf file or a Hugging Face folder."
        raise ModelFileError(f"{path} is a folder without config.json.", hint)
    from vivace.files import hf_vocabulary, safetensors_folder  # a start from GGUF has no use for them

    spec, weights, config = safetensors_folder.open_folder_model(path)
    with _closing_on_failure(weights):
        settings = folder_run_settings(config)
    name = path.resolve().name
    reader = partial(hf_vocabulary.read_vocabulary, path, config)
    return LoadedModel(path, spec, weights, name, reader, run_settings=settings)


@contextmanager
def _closing_on_failure(weights: WeightSource) -> Iterator[None]:
    try:
        yield
    except BaseException:
        weights.close()
        raise
