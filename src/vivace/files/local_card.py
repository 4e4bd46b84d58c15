"""What a model file on disk says of itself."""

from pathlib import Path

from vivace.files.catalogue import ModelCard
from vivace.files.gguf import GgufFile
from vivace.files.gguf_metadata import GgufMetadata
from vivace.files.http_download import file_sha256
from vivace.files.open import LoadedModel, open_model


def read_card(path: Path) -> ModelCard:
    """Open a GGUF file or a Hugging Face folder and describe it.

    Raises:
        ModelFileError: it is damaged.
        UnsupportedModelError: vivace does not run such models.
    """
    model = open_model(path)
    try:
        is_folder = path.is_dir()
        return ModelCard(
            name=model.name,
            summary=f"{model.spec.architecture}, {model.spec.num_layers} layers of {model.spec.hidden_size}",
            path=path.resolve(),
            num_bytes=_tensor_bytes(model) if is_folder else path.stat().st_size,
            sha256=None if is_folder else file_sha256(path),
            licence=None if is_folder else _licence(path),
            source="a folder on disk" if is_folder else "a file on disk",
            chat_template=model.vocabulary.chat_template if model.vocabulary else None,
        )
    finally:
        model.close()


def _tensor_bytes(model: LoadedModel) -> int:
    return sum(model.weights.info(name).num_bytes for name in model.weights.names())


def _licence(path: Path) -> str | None:
    file = GgufFile(path)
    try:
        metadata = GgufMetadata(file.metadata)
        return metadata.text("general.license") if metadata.has("general.license") else None
    finally:
        file.close()
