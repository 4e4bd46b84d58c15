"""The model in the formats peers read: made once from the file that was shipped, kept below the cache folder."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.cli.compare.environments import peers_folder
from vivace.cli.compare.peers import FILE
from vivace.files.cache_folder import make_folder
from vivace.files.gguf import GgufFile, GgufTensor
from vivace.files.gguf_values import StringArray
from vivace.files.gguf_writer import TensorToWrite, WritableValue, write_gguf_file
from vivace.numerics.formats import dequantize, quantize
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

_FILE_TYPES = {TensorFormat.Q4_0: 2, TensorFormat.Q8_0: 7}  # general.file_type, as llama.cpp numbers it


def model_in(format: str, model: Path) -> Path:
    """The model file or folder of a format; made when it is not there yet.

    Args:
        format: a row of FORMATS.
        model: the file that was shipped.

    Raises:
        ConfigError: the model is no GGUF file, so it cannot be turned into that format.
        StorageError: the cache folder cannot be written.
    """
    return FORMATS[format](model)


def _as_shipped(model: Path) -> Path:
    return model


def _requantized(target: TensorFormat) -> Callable[[Path], Path]:
    def make(model: Path) -> Path:
        if model.suffix != ".gguf":
            raise ConfigError(f"{model} is no GGUF file.", "Leave out the requantised formats.")
        folder = peers_folder() / "models"
        made = folder / f"{model.stem}-as-{target}.gguf"
        if not made.exists() or made.stat().st_mtime < model.stat().st_mtime:
            make_folder(folder)
            _requantize(model, made, target)
        return made

    return make


def _requantize(source: Path, made: Path, target: TensorFormat) -> None:
    """Write every quantised matrix but the embedding in another format, from its dequantised values."""
    file = GgufFile(source)
    try:
        metadata: dict[str, WritableValue] = {
            key: value.decode() if isinstance(value, StringArray) else value for key, value in file.metadata.items()
        }
        metadata["general.file_type"] = _FILE_TYPES[target]
        tensors = []
        for name, tensor in file.tensors.items():
            changed = name.startswith("blk.") and len(tensor.shape) == 2
            read = partial(_read_as, target if changed else tensor.format, file, tensor)
            tensors.append(TensorToWrite(name, tensor.shape, target if changed else tensor.format, read))
        write_gguf_file(made, metadata, tensors)
    finally:
        file.close()


def _read_as(target: TensorFormat, file: GgufFile, tensor: GgufTensor) -> NDArray[np.uint8]:
    raw = file.tensor_bytes(tensor.name)
    return raw if target is tensor.format else quantize(target, dequantize(tensor.format, raw, tensor.shape))


FORMATS: Mapping[str, Callable[[Path], Path]] = {
    FILE: _as_shipped,
    "Q4_0": _requantized(TensorFormat.Q4_0),
    "Q8_0": _requantized(TensorFormat.Q8_0),
}
