"""The model in the formats peers read: made once from the file that was shipped, kept below the cache folder."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.cli.compare.environments import PeerError, peers_folder, run_child
from vivace.cli.compare.hf_folder import write_hf_folder
from vivace.cli.compare.peers import FILE
from vivace.files.cache_folder import make_folder
from vivace.files.gguf import GgufFile, GgufTensor
from vivace.files.gguf_values import StringArray
from vivace.files.gguf_writer import TensorToWrite, WritableValue, write_gguf_file
from vivace.numerics.formats import dequantize, quantize
from vivace.types.weights import TensorFormat

_FILE_TYPES = {TensorFormat.Q4_0: 2, TensorFormat.Q8_0: 7}  # general.file_type, as llama.cpp numbers it


Maker = Callable[[Path, Path], Path]
"""Makes a format of the model (first argument), with the peer's own Python (second) where its tools are needed."""


def model_in(format: str, model: Path, python: Path) -> Path:
    """The model file or folder of a format; made when it is not there yet.

    Args:
        format: a row of FORMATS.
        model: the file that was shipped.
        python: of the peer that will read it.

    Raises:
        PeerError: the model cannot be turned into that format.
        StorageError: the cache folder cannot be written.
    """
    return FORMATS[format](model, python)


def _as_shipped(model: Path, python: Path) -> Path:
    return model


def _requantized(target: TensorFormat) -> Maker:
    def make(model: Path, python: Path) -> Path:
        made = _target(model, f"{target}.gguf")
        if _is_older(made, model):
            _requantize(model, made, target)
        return made

    return make


def _hugging_face(model: Path, python: Path) -> Path:
    made = _target(model, "hf")
    if _is_older(made / "config.json", model):
        make_folder(made)
        write_hf_folder(model, made)
    return made


def _openvino(weight_format: str) -> Maker:
    def make(model: Path, python: Path) -> Path:
        made = _target(model, f"openvino-{weight_format}")
        if _is_older(made / "openvino_model.xml", model):
            arguments = [str(_hugging_face(model, python)), str(model.resolve()), str(made), weight_format]
            run_child(python, "openvino_convert", arguments, made.with_suffix(".log"))
        return made

    return make


def _onnx(precision: str) -> Maker:
    def make(model: Path, python: Path) -> Path:
        made = _target(model, f"onnx-{precision}")
        if _is_older(made / "genai_config.json", model):
            arguments = [str(_hugging_face(model, python)), str(model.resolve()), str(made), precision]
            run_child(python, "onnxruntime_convert", arguments, made.with_suffix(".log"))
        return made

    return make


def _target(model: Path, ending: str) -> Path:
    if model.suffix != ".gguf":
        raise PeerError(f"{model.name} is no GGUF file, so it is not converted", "compare the format it has")
    folder = peers_folder() / "models"
    make_folder(folder)
    return folder / f"{model.stem}-as-{ending}"


def _is_older(made: Path, model: Path) -> bool:
    return not made.exists() or made.stat().st_mtime < model.stat().st_mtime


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


FORMATS: Mapping[str, Maker] = {
    FILE: _as_shipped,
    "Q4_0": _requantized(TensorFormat.Q4_0),
    "Q8_0": _requantized(TensorFormat.Q8_0),
    "int4": _openvino("int4"),
    "int8": _openvino("int8"),
    "onnx-int4": _onnx("int4"),
    "bf16": _hugging_face,
}
