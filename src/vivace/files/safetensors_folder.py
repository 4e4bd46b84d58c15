"""A model in a Hugging Face folder: config.json, one or several safetensors files, tokenizer.json and side files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.compressed_tensors import QuantizedPart, read_scheme
from vivace.files.families import FAMILIES, Family
from vivace.files.hf_names import is_lm_head, is_unused, vivace_name
from vivace.files.hf_spec import read_hf_spec
from vivace.files.json_object import JsonObject, read_json_object
from vivace.files.layout import check_tensors, refuse_unknown
from vivace.files.safetensors_file import SafetensorsEntry, SafetensorsFile
from vivace.numerics.formats import dequantize
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat, TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


SafetensorsPart = SafetensorsFile | QuantizedPart


class SafetensorsWeights:
    """`WeightSource` over open safetensors files, which it owns.

    Args:
        parts: the files.
        spec: what the tensors must add up to.

    Raises:
        ModelFileError: a tensor is missing, there twice, or has the wrong shape.
        UnsupportedModelError: there is a tensor the architecture does not have.
    """

    def __init__(self, parts: Sequence[SafetensorsPart], spec: ModelSpec) -> None:
        self._parts = tuple(parts)
        self._family: Family = FAMILIES[spec.architecture]
        self._entries: dict[str, tuple[SafetensorsPart, str]] = {}
        for part in parts:
            for stored_name in part.entries:
                self._add(part, stored_name, spec)
        check_tensors(spec, {name: self._entry(name).shape for name in self._entries})

    def _add(self, part: SafetensorsPart, stored_name: str, spec: ModelSpec) -> None:
        if is_unused(stored_name) or (is_lm_head(stored_name) and spec.tied_embeddings):
            return
        name = vivace_name(stored_name, self._family)
        if name is None:
            refuse_unknown(spec.architecture, [stored_name])
        elif name in self._entries:
            raise ModelFileError(f"The tensor {stored_name!a} is there twice.", "Get the model again.")
        else:
            self._entries[name] = (part, stored_name)

    def names(self) -> Sequence[str]:
        """All tensor names, in vivace's naming, in file order."""
        return list(self._entries)

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        entry = self._entry(name)
        if self._is_shifted(name):
            return TensorInfo(name, entry.shape, TensorFormat.F32, 4 * entry.shape[0])
        return TensorInfo(name, entry.shape, entry.format, entry.num_bytes)

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D and read-only: a view of the mapped file, but for norms that are stored as w - 1."""
        if self._is_shifted(name):
            shifted = self.dequantize(name).view(np.uint8)
            shifted.flags.writeable = False
            return shifted
        part, stored_name = self._find(name)
        return part.tensor_bytes(stored_name)

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32 of `info(name).shape` (a copy)."""
        entry = self._entry(name)
        part, stored_name = self._find(name)
        values = dequantize(entry.format, part.tensor_bytes(stored_name), entry.shape)
        return values + np.float32(self._family.stored_norm_offset) if self._is_shifted(name) else values

    def release(self, name: str) -> None:
        """Let the tensor's pages leave memory; reading brings them back."""
        part, stored_name = self._find(name)
        part.release_tensor(stored_name)

    def close(self) -> None:
        """Release the mapped files."""
        for part in self._parts:
            part.close()

    def _is_shifted(self, name: str) -> bool:
        return self._family.stored_norm_offset != 0 and name.endswith("norm.weight")

    def _entry(self, name: str) -> SafetensorsEntry:
        part, stored_name = self._find(name)
        return part.entries[stored_name]

    def _find(self, name: str) -> tuple[SafetensorsPart, str]:
        if name not in self._entries:
            raise ModelFileError(f"The model has no tensor {name}.", "Get the file again.")
        return self._entries[name]


def open_folder_model(folder: Path) -> tuple[ModelSpec, SafetensorsWeights, JsonObject]:
    """Open the model in a folder.

    Returns:
        Spec, weights (which own the open files), and config.json for whoever needs the vocabulary.

    Raises:
        ModelFileError: a file is missing or damaged, or tensors do not fit the config.
        UnsupportedModelError: a sound model of a kind vivace does not run.
    """
    config = read_json_object(folder / "config.json")
    scheme = read_scheme(config)
    parts: list[SafetensorsPart] = []
    try:
        for path in _tensor_files(folder):
            file = SafetensorsFile(path, with_integers=scheme is not None)
            parts.append(file if scheme is None else QuantizedPart(file, scheme))
        has_lm_head = any(is_lm_head(name) for part in parts for name in part.entries)
        spec = read_hf_spec(config, has_lm_head)
        return spec, SafetensorsWeights(parts, spec), config
    except BaseException:
        for part in parts:
            part.close()
        raise


def _tensor_files(folder: Path) -> list[Path]:
    """The single file, else what the index names, else the only safetensors file there is."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return _indexed_files(folder)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise ModelFileError(f"{folder} has {len(found)} safetensors files, but no {INDEX}.", "Get the index as well.")
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise UnsupportedModelError(f"{folder} holds pickled PyTorch weights.", "Convert them to safetensors.")
    raise ModelFileError(f"{folder} has no safetensors files.", "The folder is incomplete; get it again.")


def _indexed_files(folder: Path) -> list[Path]:
    weight_map = read_json_object(folder / INDEX).inner("weight_map")
    names = sorted({weight_map.text(name) for name in weight_map.as_dict()})
    paths = []
    for name in names:
        if Path(name).name != name or name.startswith("."):
            raise ModelFileError(f"{folder / INDEX} names the file {name[:200]!a}.", "Only plain names are followed.")
        if not (folder / name).exists():
            raise ModelFileError(f"{folder / name} is missing.", "The folder is incomplete; get it again.")
        paths.append(folder / name)
    if not paths:
        raise ModelFileError(f"{folder / INDEX} names no files.", "The folder is incomplete; get it again.")
    return paths
