"""Quantised matrices in safetensors files, in the two integer layouts of the compressed-tensors package.

`pack-quantized`: `NAME_packed` int32 (out, in / 8), eight 4-bit codes a number, the first lowest, 8 added to each;
`NAME_scale` (out, groups); `NAME_shape` int64 (2,); with zero points `NAME_zero_point` int32 (out / 8, groups), packed
along the rows. `int-quantized`: `NAME` int8 (out, in) and `NAME_scale`. Matrices are handed on as GGML blocks, so that
the kernels of Q4_0, Q4_1 and Q8_0 run them: codes exactly as they are stored, scales and minima rounded to float16.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.files.json_object import JsonObject
from vivace.files.safetensors_file import SafetensorsEntry, SafetensorsFile
from vivace.numerics.formats import dequantize, num_bytes
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.weights import TensorFormat

METHOD, PACKED, INTEGER = "compressed-tensors", "pack-quantized", "int-quantized"
BLOCK = 32
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StoredScheme:
    """What `quantization_config` says of all quantised linears: a layout, code width, and whether 0 is a code's own."""

    layout: str
    bits: int
    symmetric: bool

    @property
    def format(self) -> TensorFormat:
        """The blocks that matrices are handed on in."""
        if self.bits == 8:
            return TensorFormat.Q8_0
        return TensorFormat.Q4_0 if self.symmetric else TensorFormat.Q4_1


def read_scheme(config: JsonObject) -> StoredScheme | None:
    """The scheme of a config.json; None when it has no `quantization_config`.

    Raises:
        ModelFileError: a field is missing or of the wrong type.
        UnsupportedModelError: a method, a layout or a width that vivace does not read.
    """
    if not config.get("quantization_config"):
        return None
    settings = config.inner("quantization_config")
    method, layout = settings.text("quant_method"), settings.text("format", PACKED)
    if method != METHOD or layout not in (PACKED, INTEGER):
        raise UnsupportedModelError(
            f"{config.source}: quantization_config names {method[:40]!a}, {layout[:40]!a}.",
            f"vivace reads {METHOD} in the layouts {PACKED} and {INTEGER}, and GGUF files.",
        )
    groups = settings.inner("config_groups")
    names = list(groups.as_dict())
    if len(names) != 1:
        raise UnsupportedModelError(
            f"{config.source}: {len(names)} kinds of quantisation in one model.", "vivace reads models of one kind."
        )
    weights = groups.inner(names[0]).inner("weights")
    bits, symmetric = weights.integer("num_bits"), weights.flag("symmetric")
    sound = (layout, bits, symmetric) in ((PACKED, 4, True), (PACKED, 4, False), (INTEGER, 8, True))
    if weights.text("type", "int") != "int" or not sound:
        raise UnsupportedModelError(
            f"{config.source}: codes of {bits} bits in the layout {layout}.",
            "vivace reads 4 bits packed, and symmetric 8 bits.",
        )
    return StoredScheme(layout, bits, symmetric)


class QuantizedPart:
    """A safetensors file whose quantised matrices look like tensors of GGML blocks; all else is passed through.

    Args:
        file: opened with its integer tensors; owned from now on.
        scheme: of the model.

    Raises:
        ModelFileError: parts of a matrix are missing or do not fit together.
        UnsupportedModelError: groups that are no multiple of 32 columns, or that are not runs of columns.
    """

    def __init__(self, file: SafetensorsFile, scheme: StoredScheme) -> None:
        self._file, self._scheme = file, scheme
        self.path = file.path
        if any(name.endswith("_g_idx") for name in file.integers):
            raise UnsupportedModelError(
                f"{file.path}: columns are grouped in an order of their own (g_idx).",
                "Get the model quantised without act-order, or with static groups.",
            )
        stem = "_packed" if scheme.layout == PACKED else ""
        self._matrices = {name.removesuffix(stem): name for name in file.integers if name.endswith(f".weight{stem}")}
        self.entries: Mapping[str, SafetensorsEntry] = {
            **{name: entry for name, entry in file.entries.items() if not name.endswith("_scale")},
            **{name: self._entry(name) for name in self._matrices},
        }

    def tensor_bytes(self, name: str) -> Bytes:
        """The bytes of a tensor, 1-D: those of the file, or blocks made of a matrix's codes and scales."""
        if name not in self._matrices:
            return self._file.tensor_bytes(name)
        shape = self.entries[name].shape
        codes, scales = self._codes(name, shape), self._scales(name)
        repeats = shape[1] // BLOCK // scales.shape[1]
        halves = np.repeat(scales, repeats, axis=1).astype("<f2").reshape(-1, 1)
        blocks = codes.reshape(-1, BLOCK)
        if self._scheme.bits == 8:
            return np.concatenate([halves.view(np.uint8), blocks.view(np.uint8)], axis=1).reshape(-1)
        nibbles = blocks[:, : BLOCK // 2] | blocks[:, BLOCK // 2 :] << 4
        if self._scheme.symmetric:
            return np.concatenate([halves.view(np.uint8), nibbles], axis=1).reshape(-1)
        minima = np.repeat(-self._zero_points(name, scales.shape) * scales, repeats, axis=1)
        parts = [halves.view(np.uint8), minima.astype("<f2").reshape(-1, 1).view(np.uint8), nibbles]
        return np.concatenate(parts, axis=1).reshape(-1)

    def release_tensor(self, name: str) -> None:
        """Let the tensor's pages leave memory."""
        if name in self.entries and name not in self._matrices:
            self._file.release_tensor(name)

    def close(self) -> None:
        """Release the mapped file."""
        self._file.close()

    def _entry(self, name: str) -> SafetensorsEntry:
        stored = self._file.integers[self._matrices[name]]
        scale = self._file.entries.get(f"{name}_scale")
        if scale is None or len(stored.shape) != 2 or len(scale.shape) != 2 or scale.shape[0] != stored.shape[0]:
            raise ModelFileError(
                f"The quantised matrix {name[:200]!a} lacks scales that fit it.", "Get the file again."
            )
        shape = (stored.shape[0], stored.shape[1] * (8 if self._scheme.layout == PACKED else 1))
        if stored.dtype != ("I32" if self._scheme.layout == PACKED else "I8"):
            raise ModelFileError(f"The codes of {name[:200]!a} have type {stored.dtype}.", "Get the file again.")
        if shape[1] % scale.shape[1] or shape[1] // scale.shape[1] % BLOCK:
            raise UnsupportedModelError(
                f"{name[:200]!a} has {scale.shape[1]} groups in rows of {shape[1]}.",
                f"vivace runs groups of a multiple of {BLOCK} columns.",
            )
        format = self._scheme.format
        return SafetensorsEntry(shape, format, 0, num_bytes(format, shape))

    def _codes(self, name: str, shape: tuple[int, ...]) -> Bytes:
        raw = self._file.tensor_bytes(self._matrices[name])
        if self._scheme.layout == INTEGER:
            return raw.reshape(shape)
        return np.stack([raw & 15, raw >> 4], axis=1).reshape(shape)  # little end first: code i is nibble i

    def _scales(self, name: str) -> NDArray[np.float32]:
        entry = self._file.entries[f"{name}_scale"]
        return dequantize(entry.format, self._file.tensor_bytes(f"{name}_scale"), entry.shape)

    def _zero_points(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The codes that stand for 0, float32 (out, groups); stored packed along the rows."""
        stored = self._file.integers.get(f"{name}_zero_point")
        if stored is None or stored.dtype != "I32" or stored.shape != (-(-shape[0] // 8), shape[1]):
            raise ModelFileError(f"The matrix {name[:200]!a} lacks zero points that fit it.", "Get the file again.")
        words = self._file.tensor_bytes(f"{name}_zero_point").view("<u4").reshape(stored.shape)
        nibbles = (words[:, None, :] >> (4 * np.arange(8, dtype=np.uint32))[None, :, None]) & 15
        return nibbles.reshape(-1, shape[1])[: shape[0]].astype(np.float32)
