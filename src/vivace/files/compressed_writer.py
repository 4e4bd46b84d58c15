"""Writes a model as a Hugging Face folder in the compressed-tensors layouts; `compressed_tensors.py` reads them.

Blocks of Q4_0 and Q4_1 become `pack-quantized` and those of Q8_0 and Q8_M `int-quantized`, codes and float16 scales
exactly as they are, so that reading the folder gives the very blocks back. Minima have to be whole zero points.
Settings and tokenizer are copied from the folder of the source.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.compressed_tensors import BLOCK, INTEGER, METHOD, PACKED, StoredScheme
from vivace.files.families import FAMILIES, Family
from vivace.files.hf_names import stored_name
from vivace.files.open import LoadedModel
from vivace.files.run_settings import KV_FORMAT_FIELD, SECTION, folder_inputs
from vivace.types.errors import ConfigError
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat, WeightSource

LAYOUTS = {
    TensorFormat.Q4_0: (PACKED, 4),
    TensorFormat.Q4_1: (PACKED, 4),
    TensorFormat.Q8_0: (INTEGER, 8),
    TensorFormat.Q8_M: (INTEGER, 8),
}
"""What the layers' matrices may be stored as: layout and bits."""
ASYMMETRIC = frozenset({TensorFormat.Q4_1, TensorFormat.Q8_M})
"""Those that go with zero points."""
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
    scheme, group = check_layout(source, weights)
    family = FAMILIES[source.spec.architecture]
    tensors = Tensors()
    for name in weights.names():
        theirs = stored_name(name, family)
        if _is_linear(name, weights):
            tensors |= _quantised(theirs, weights.raw(name), weights.info(name).shape, scheme, group)
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
    config |= {"quantization_config": _config(scheme, group, settings), "tie_word_embeddings": tied}
    if settings.kv_format is not None:
        config[SECTION] = {KV_FORMAT_FIELD: settings.kv_format}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_tensors(folder / "model.safetensors", tensors)


def check_layout(source: LoadedModel, weights: WeightSource) -> tuple[StoredScheme, int | None]:
    """The scheme and the columns of a group that hold all matrices of the layers; None: one scale a row.

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
    format = formats.pop()
    scheme = StoredScheme(*LAYOUTS[format], symmetric=format not in ASYMMETRIC)
    groups = {name: _group(weights.raw(name), weights.info(name).shape, scheme) for name in matrices}
    by_row = all(group == weights.info(name).shape[1] for name, group in groups.items())
    return scheme, None if by_row else math.gcd(*groups.values())


def norms_as_read(architecture: str, weights: WeightSource) -> dict[str, NDArray[np.float32]]:
    """Norms that the family stores as w - 1, as float32 gives them back: under a half, not quite what they were."""
    family = FAMILIES[architecture]
    offset = np.float32(family.stored_norm_offset)
    return {name: weights.dequantize(name) - offset + offset for name in weights.names() if _is_shifted(name, family)}


def _is_shifted(name: str, family: Family) -> bool:
    return family.stored_norm_offset != 0 and name.endswith("norm.weight")


def _is_linear(name: str, weights: WeightSource) -> bool:
    return name.startswith("layers.") and len(weights.info(name).shape) == 2


def _blocks(raw: NDArray[np.uint8], scheme: StoredScheme) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Scales (n, 1), or scales and minima (n, 2), and bytes of codes, of all blocks in row order."""
    numbers = 1 if scheme.symmetric else 2
    blocks = raw.reshape(-1, 2 * numbers + BLOCK * scheme.bits // 8)
    return np.ascontiguousarray(blocks[:, : 2 * numbers]).view("<f2"), blocks[:, 2 * numbers :]


def _group(raw: NDArray[np.uint8], shape: tuple[int, ...], scheme: StoredScheme) -> int:
    """The most columns, in whole blocks that divide the row, that share a scale and a minimum throughout."""
    numbers = _blocks(raw, scheme)[0]
    numbers = numbers.reshape(shape[0], -1, numbers.shape[1])
    count = numbers.shape[1]
    for size in range(count, 0, -1):
        runs = numbers.reshape(shape[0], -1, size, numbers.shape[2]) if count % size == 0 else None
        if runs is not None and (runs == runs[:, :, :1]).all():
            return size * BLOCK
    return BLOCK


def _quantised(
    name: str, raw: NDArray[np.uint8], shape: tuple[int, ...], scheme: StoredScheme, group: int | None
) -> Tensors:
    numbers, codes = _blocks(raw, scheme)
    numbers = numbers.reshape(shape[0], -1, numbers.shape[1])[:, :: (group or shape[1]) // BLOCK]
    parts: Tensors = {f"{name}_scale": np.ascontiguousarray(numbers[:, :, 0])}
    zeros = None if scheme.symmetric else _zero_points(name, numbers, scheme.format)
    if scheme.bits == 8:
        if zeros is not None:
            parts[f"{name}_zero_point"] = zeros
        return {name: codes.view(np.int8).reshape(shape), **parts}
    nibbles = np.concatenate([codes & 15, codes >> 4], axis=1).reshape(shape)
    if zeros is not None:
        parts[f"{name}_zero_point"] = np.ascontiguousarray(_packed(zeros.view(np.uint8).T).T)
    return {f"{name}_packed": _packed(nibbles), f"{name}_shape": np.array(shape, np.int64), **parts}


def _packed(nibbles: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Codes 0 .. 15 (n, m) as int32 (n, m / 8, rounded up), the first code lowest."""
    padded = np.pad(nibbles, ((0, 0), (0, -nibbles.shape[1] % 8)))
    return np.ascontiguousarray(padded[:, 0::2] | padded[:, 1::2] << 4).view("<i4")


_CODES = {TensorFormat.Q4_1: (0, 15), TensorFormat.Q8_M: (-128, 127)}


def _zero_points(name: str, numbers: NDArray[np.float16], format: TensorFormat) -> NDArray[np.int8]:
    """The codes of a block that stand for 0, int8 (rows, groups).

    Raises:
        ConfigError: a minimum is no whole number of steps.
    """
    scales, minima = numbers[:, :, 0].astype(np.float32), numbers[:, :, 1]
    zeros = np.clip(np.rint(-minima.astype(np.float32) / scales), *_CODES[format])
    if not np.array_equal((-zeros * scales).astype(np.float16), minima):
        raise ConfigError(f"The minima of {name} are no whole zero points.", "Give its rule zero_point: true.")
    found: NDArray[np.int8] = zeros.astype(np.int8)
    return found


def _config(scheme: StoredScheme, group: int | None, settings: RunSettings) -> Mapping[str, object]:
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        **({"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}),
    }
    kind = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": folder_inputs(settings),
        "output_activations": None,
    }
    return {
        "quant_method": METHOD,
        "format": scheme.layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": kind},
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
