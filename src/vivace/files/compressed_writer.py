"""Writes a model as a Hugging Face folder in the compressed-tensors layouts; `compressed_tensors.py` reads them.

Blocks of Q4_0 become `pack-quantized` and those of Q8_0 `int-quantized`, codes and float16 scales exactly as they are,
so that reading the folder gives the very blocks back. Settings and tokenizer are copied from the folder of the source.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.compressed_tensors import BLOCK, INTEGER, METHOD, PACKED
from vivace.files.families import FAMILIES, Family
from vivace.files.hf_names import stored_name
from vivace.files.open import LoadedModel
from vivace.files.run_settings import KV_FORMAT_FIELD, SECTION, folder_inputs
from vivace.types.errors import ConfigError
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat, WeightSource

LAYOUTS = {TensorFormat.Q4_0: (PACKED, 4), TensorFormat.Q8_0: (INTEGER, 8)}
"""What the layers' matrices may be stored as: layout and bits."""
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja")
_DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "int64": "I64"}
Tensors = dict[str, NDArray[np.generic]]


def write_compressed_folder(
    folder: Path, source: LoadedModel, weights: WeightSource, settings: RunSettings, *, tied: bool
) -> None:
    """Write a folder that does not exist yet.

    Args:
        folder: to be made.
        source: an open Hugging Face folder.
        weights: every tensor; matrices of layers all in one format of LAYOUTS.
        settings: how it is to be run.
        tied: whether the head shares the embedding's matrix.

    Raises:
        ConfigError: the source is no folder, or matrices are of several kinds or of one that no layout holds.
        OSError: something cannot be written.
    """
    layout, bits, group = check_layout(source, weights)
    family = FAMILIES[source.spec.architecture]
    tensors = Tensors()
    for name in weights.names():
        theirs = stored_name(name, family)
        if _is_linear(name, weights):
            tensors |= _quantised(theirs, weights.raw(name), weights.info(name).shape, bits, group)
            continue
        values = weights.dequantize(name)
        if _is_shifted(name, family):
            values = values - np.float32(family.stored_norm_offset)
        tensors[theirs] = values if values.ndim == 1 else values.astype(np.float16)
    folder.mkdir()
    for pattern in _COPIED:
        for path in source.path.glob(pattern):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, folder / path.name)
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    config |= {"quantization_config": _config(layout, bits, group, settings), "tie_word_embeddings": tied}
    if settings.kv_format is not None:
        config[SECTION] = {KV_FORMAT_FIELD: settings.kv_format}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_tensors(folder / "model.safetensors", tensors)


def check_layout(source: LoadedModel, weights: WeightSource) -> tuple[str, int, int]:
    """Layout, bits and columns of a group that hold all matrices of the layers.

    Raises:
        ConfigError: the source is no Hugging Face folder, or no layout holds them.
    """
    if not source.path.is_dir():
        raise ConfigError(f"{source.path} is no Hugging Face folder.", "Give an OUT that ends in .gguf.")
    matrices = [n for n in weights.names() if n.startswith("layers.") and len(weights.info(n).shape) == 2]
    formats = {weights.info(name).format for name in matrices}
    if len(formats) != 1 or not formats <= set(LAYOUTS):
        raise ConfigError(
            f"Layers in {', '.join(sorted(formats))} have no compressed-tensors layout.",
            f"Use one of {', '.join(LAYOUTS)} for all of them, or an OUT that ends in .gguf.",
        )
    layout, bits = LAYOUTS[formats.pop()]
    return layout, bits, math.gcd(*(_group(weights.raw(name), weights.info(name).shape, bits) for name in matrices))


def norms_as_read(architecture: str, weights: WeightSource) -> dict[str, NDArray[np.float32]]:
    """Norms that the family stores as w - 1, as float32 gives them back: under a half, not quite what they were."""
    family = FAMILIES[architecture]
    offset = np.float32(family.stored_norm_offset)
    return {name: weights.dequantize(name) - offset + offset for name in weights.names() if _is_shifted(name, family)}


def _is_shifted(name: str, family: Family) -> bool:
    return family.stored_norm_offset != 0 and name.endswith("norm.weight")


def _is_linear(name: str, weights: WeightSource) -> bool:
    return name.startswith("layers.") and len(weights.info(name).shape) == 2


def _blocks(raw: NDArray[np.uint8], bits: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Scales, and bytes of codes, of all blocks in row order."""
    blocks = raw.reshape(-1, 2 + BLOCK * bits // 8)
    return np.ascontiguousarray(blocks[:, :2]).view("<f2")[:, 0], blocks[:, 2:]


def _group(raw: NDArray[np.uint8], shape: tuple[int, ...], bits: int) -> int:
    """The most columns, in whole blocks that divide the row, that share a scale throughout."""
    scales = _blocks(raw, bits)[0].reshape(shape[0], -1)
    count = scales.shape[1]
    for size in range(count, 0, -1):
        if count % size == 0 and (scales.reshape(shape[0], -1, size) == scales[:, ::size, None]).all():
            return size * BLOCK
    return BLOCK


def _quantised(name: str, raw: NDArray[np.uint8], shape: tuple[int, ...], bits: int, group: int) -> Tensors:
    scales, codes = _blocks(raw, bits)
    scale = {f"{name}_scale": np.ascontiguousarray(scales.reshape(shape[0], -1)[:, :: group // BLOCK])}
    if bits == 8:
        return {name: codes.view(np.int8).reshape(shape), **scale}
    nibbles = np.concatenate([codes & 15, codes >> 4], axis=1).reshape(shape)
    words = np.ascontiguousarray(nibbles[:, 0::2] | nibbles[:, 1::2] << 4).view("<i4")  # the first code lowest
    return {f"{name}_packed": words, f"{name}_shape": np.array(shape, np.int64), **scale}


def _config(layout: str, bits: int, group: int, settings: RunSettings) -> Mapping[str, object]:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    scheme = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": folder_inputs(settings),
        "output_activations": None,
    }
    return {
        "quant_method": METHOD,
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
    }


def _write_tensors(path: Path, tensors: Tensors) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, array in tensors.items():
        end = position + array.nbytes
        dtype = _DTYPES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
