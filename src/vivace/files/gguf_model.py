"""A model in one or several GGUF files: its spec, and its weights under vivace's names."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf import GgufFile, GgufTensor
from vivace.files.gguf_bands import BandedTensor, directory, join_bands
from vivace.files.gguf_metadata import GgufMetadata
from vivace.files.gguf_spec import read_gguf_spec
from vivace.files.layout import check_tensors, refuse_unknown
from vivace.numerics.formats import dequantize
from vivace.types.errors import ModelFileError
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorInfo

FREQUENCY_FACTORS = "rope_freqs.weight"  # part of the spec, not a weight

_GLOBAL_NAMES = {
    "token_embd.weight": "embed.weight",
    "output_norm.weight": "final_norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "attn_norm",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_q_norm": "attn.q_norm",
    "attn_k_norm": "attn.k_norm",
    "attn_output": "attn.o",
    "post_attention_norm": "attn_post_norm",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
    "post_ffw_norm": "mlp_post_norm",
}
_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z_]+)\.(weight|bias)")
_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")


def vivace_name(gguf_name: str) -> str | None:
    """Our name of a GGUF tensor, or None when no architecture of ours has it."""
    match = _LAYER.fullmatch(gguf_name)
    if match is None:
        return _GLOBAL_NAMES.get(gguf_name)
    layer, middle, kind = match.groups()
    return f"layers.{layer}.{_LAYER_NAMES[middle]}.{kind}" if middle in _LAYER_NAMES else None


def gguf_name(name: str) -> str:
    """The GGUF name of one of our tensors: the inverse of `vivace_name`."""
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("layers."):
        return next(theirs for theirs, ours in _GLOBAL_NAMES.items() if ours == name)
    _, layer, middle = stem.split(".", 2)
    theirs = next(theirs for theirs, ours in _LAYER_NAMES.items() if ours == middle)
    return f"blk.{layer}.{theirs}.{kind}"


class GgufWeights:
    """`WeightSource` over open GGUF files, which it owns.

    Args:
        parts: the files, in order.
        spec: what the tensors must add up to.

    Raises:
        ModelFileError: a tensor is missing or has the wrong shape.
        UnsupportedModelError: there is a tensor the architecture does not have.
    """

    def __init__(self, parts: Sequence[GgufFile], spec: ModelSpec) -> None:
        self._parts = tuple(parts)
        self._entries: dict[str, BandedTensor] = {}
        for part in parts:
            for gguf_name, tensor in join_bands(part):
                name = vivace_name(gguf_name)
                if name is not None:
                    self._entries[name] = tensor
                elif gguf_name != FREQUENCY_FACTORS:
                    refuse_unknown(spec.architecture, [gguf_name])
        check_tensors(spec, {name: tensor.shape for name, tensor in self._entries.items()})

    def names(self) -> Sequence[str]:
        """All tensor names, in vivace's naming, in file order."""
        return list(self._entries)

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        tensor = self._entry(name)
        return TensorInfo(name, tensor.shape, tensor.format, tensor.num_bytes, tensor.bands)

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D, a read-only view of the mapped file."""
        return self._entry(name).raw()

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32 of `info(name).shape` (a copy)."""
        return self._entry(name).dequantize()

    def release(self, name: str) -> None:
        """Let the tensor's pages leave memory; reading brings them back."""
        self._entry(name).release()

    def close(self) -> None:
        """Release the mapped files."""
        for part in self._parts:
            part.close()

    def _entry(self, name: str) -> BandedTensor:
        if name not in self._entries:
            raise ModelFileError(f"The model has no tensor {name}.", "Get the file again.")
        return self._entries[name]


def open_gguf_model(path: Path) -> tuple[ModelSpec, GgufWeights, GgufMetadata]:
    """Open a GGUF model, whole or split (`name-00001-of-00003.gguf`; give the first part).

    Returns:
        Spec, weights (which own the open files), and the metadata for whoever needs the vocabulary.

    Raises:
        ModelFileError: a file is damaged, a part is missing, or tensors do not fit the metadata.
        UnsupportedModelError: a sound file of a kind vivace does not run.
    """
    parts: list[GgufFile] = []
    try:
        for part_path in _part_paths(path):
            parts.append(GgufFile(part_path))
        _check_split(parts)
        tensors = _merged_directory(parts)
        values = dict(parts[0].metadata)
        spec = read_gguf_spec(values, tensors, _frequency_factors(parts))
        return spec, GgufWeights(parts, spec), GgufMetadata(values, spec.architecture)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _part_paths(path: Path) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    first = path.with_name(f"{match['stem']}-00001-of-{count:05d}.gguf")
    if int(match["number"]) != 1:
        raise ModelFileError(f"{path} is one part of a split model.", f"Give its first part, {first}.")
    if count > 1000:
        raise ModelFileError(f"{path} claims to be split into {count} parts.", "Rename or merge it.")
    paths = [path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    for part in paths[1:]:
        if path.exists() and not part.exists():
            raise ModelFileError(f"The part {part} of a split model is missing.", "Get all parts into one folder.")
    return paths


def _check_split(parts: Sequence[GgufFile]) -> None:
    claimed = GgufMetadata(parts[0].metadata).integer("split.count", 0)
    if claimed not in (0, 1, len(parts)):
        raise ModelFileError(
            f"{parts[0].path} is split into {claimed} parts, but its name does not say where they are.",
            "Keep the names of the parts as NAME-00001-of-0000N.gguf, in one folder.",
        )


def _merged_directory(parts: Sequence[GgufFile]) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for part in parts:
        for name, tensor in directory(part).items():
            if name in tensors:
                raise ModelFileError(f"Two parts of the model have a tensor {name!a}.", "Get all parts again.")
            tensors[name] = tensor
    return tensors


def _frequency_factors(parts: Sequence[GgufFile]) -> tuple[float, ...] | None:
    for part in parts:
        tensor = part.tensors.get(FREQUENCY_FACTORS)
        if tensor is None:
            continue
        if len(tensor.shape) != 1 or tensor.shape[0] > 1 << 16:
            raise ModelFileError(f"The tensor {FREQUENCY_FACTORS} has shape {tensor.shape}.", "Get the file again.")
        return tuple(dequantize(tensor.format, part.tensor_bytes(tensor.name), tensor.shape).tolist())
    return None
