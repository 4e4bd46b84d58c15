"""Quantised matrices in safetensors files, in the two integer layouts of the compressed-tensors package.

`pack-quantized`: `NAME_packed` int32 (out, in * bits / 32), codes of 2, 4 or 8 bits, the first lowest, half their
range added to each; `NAME_scale`; `NAME_shape` int64 (2,); with zero points `NAME_zero_point` int32, packed likewise
along the rows. `int-quantized`: `NAME` int8 (out, in), `NAME_scale` and `NAME_zero_point` int8 of its shape. Scales are
one a group of columns (out, groups), a row (out, 1), a tile (out / height, in / width) or a matrix (1,); zero points of
the last two are never packed. Matrices are handed on as blocks, so that the kernels of Q4_0, Q4_1, Q8_0 and Q8_M run
them: codes exactly as they are stored, scales and minima rounded to float16.
"""

import math
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
    """What `quantization_config` says of all quantised linears.

    Attributes:
        layout: PACKED or INTEGER.
        bits: of a code.
        symmetric: without zero points.
        tile: rows and columns that share a scale; None: scales say by their shape.
    """

    layout: str
    bits: int
    symmetric: bool
    tile: tuple[int, int] | None = None

    @property
    def format(self) -> TensorFormat:
        """The blocks that matrices are handed on in."""
        return _BLOCKS[self.bits > 4, self.symmetric]

    @property
    def raised(self) -> int:
        """What is added to a signed code in the blocks: all but those of 4 bits without zero points start at 0."""
        if self.format is TensorFormat.Q4_0:
            return 8
        return 1 << (self.bits - 1) if self.format is TensorFormat.Q4_1 else 0


_BLOCKS = {
    (False, True): TensorFormat.Q4_0,
    (False, False): TensorFormat.Q4_1,
    (True, True): TensorFormat.Q8_0,
    (True, False): TensorFormat.Q8_M,
}
"""By whether codes are wider than 4 bits, and symmetry."""
_WIDTHS = {PACKED: (2, 4, 8), INTEGER: (2, 3, 4, 5, 6, 7, 8)}
"""Codes of other widths are packed across words, by some versions of the package."""


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
    bits, symmetric = weights.integer("num_bits"), weights.flag("symmetric", True)
    kind = weights.text("type", "int")
    if kind != "int" or bits not in _WIDTHS[layout]:
        raise UnsupportedModelError(
            f"{config.source}: {kind} codes of {bits} bits in the layout {layout}.",
            f"vivace reads whole numbers of {', '.join(map(str, _WIDTHS[layout]))} bits in this layout.",
        )
    return StoredScheme(layout, bits, symmetric, _read_tile(weights))


def _read_tile(weights: JsonObject) -> tuple[int, int] | None:
    """Rows and columns of a tile, of the strategy "block" alone."""
    if weights.text("strategy", "") != "block":
        return None
    sides = weights.as_dict().get("block_structure")
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ModelFileError(f"{weights.source}: block_structure is not two numbers above 0.", "Get the file again.")
    return sides[0], sides[1]


def _unfit(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"The quantised matrix {name[:200]!a} lacks {what} that fit it.", "Get the file again.")


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
        self._shapes = {name: self._shape(name) for name in self._matrices}
        self.entries: Mapping[str, SafetensorsEntry] = {
            **{name: entry for name, entry in file.entries.items() if not name.endswith("_scale")},
            **{name: self._entry(name) for name in self._matrices},
        }

    def tensor_bytes(self, name: str) -> Bytes:
        """The bytes of a tensor, 1-D: those of the file, or blocks made of a matrix's codes and scales."""
        if name not in self._matrices:
            return self._file.tensor_bytes(name)
        shape = self._shapes[name]
        scheme, scales = self._scheme, self._scales(name)
        numbers = [scales]
        if not scheme.symmetric:
            numbers.append(0 - (self._zero_points(name, shape[0]) + np.float32(scheme.raised)) * scales)
        halves = [self._by_block(name, each, shape).astype("<f2").reshape(-1, 1).view(np.uint8) for each in numbers]
        raised = self._codes(name, shape) + np.int8(scheme.raised)
        blocks = np.ascontiguousarray(raised).view(np.uint8).reshape(-1, BLOCK)
        if scheme.bits <= 4:
            blocks = blocks[:, : BLOCK // 2] | np.left_shift(blocks[:, BLOCK // 2 :], 4)
        return np.concatenate([*halves, blocks], axis=1).reshape(-1)

    def release_tensor(self, name: str) -> None:
        """Let the tensor's pages leave memory."""
        if name in self.entries and name not in self._matrices:
            self._file.release_tensor(name)

    def close(self) -> None:
        """Release the mapped file."""
        self._file.close()

    def _shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of a matrix whose parts fit together."""
        stored = self._file.integers[self._matrices[name]]
        codes_per_number = 32 // self._scheme.bits if self._scheme.layout == PACKED else 1
        if len(stored.shape) != 2 or f"{name}_scale" not in self._file.entries:
            raise _unfit(name, "scales")
        if stored.dtype != ("I32" if self._scheme.layout == PACKED else "I8"):
            raise ModelFileError(f"The codes of {name[:200]!a} have type {stored.dtype}.", "Get the file again.")
        shape = (stored.shape[0], stored.shape[1] * codes_per_number)
        (rows, columns), (height, width) = shape, self._tile(name, shape)
        if self._grid(name) not in ((-(-rows // height), -(-columns // width)), (1, 1)):
            raise _unfit(name, "scales")
        if columns % BLOCK or (width % BLOCK and width < columns):
            raise UnsupportedModelError(
                f"{name[:200]!a} has groups of {width} in rows of {columns}.",
                f"vivace runs groups of a multiple of {BLOCK} columns.",
            )
        return shape

    def _entry(self, name: str) -> SafetensorsEntry:
        format, shape = self._scheme.format, self._shapes[name]
        return SafetensorsEntry(shape, format, 0, num_bytes(format, shape))

    def _grid(self, name: str) -> tuple[int, ...]:
        """The shape of a matrix's scales; (1, 1) for one alone."""
        shape = self._file.entries[f"{name}_scale"].shape
        return (1, 1) if shape in ((), (1,)) else shape

    def _tile(self, name: str, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        if self._scheme.tile is not None:
            return self._scheme.tile
        grid = self._grid(name)
        groups = grid[1] if len(grid) == 2 else 0
        if groups == 0 or shape[1] % groups:
            raise _unfit(name, "scales")
        return (shape[0] if grid == (1, 1) else 1), shape[1] // groups

    def _by_block(self, name: str, values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Scales or minima, one for each block of a matrix: float32 (rows, blocks)."""
        height, width = self._tile(name, shape)
        if values.size == 1:
            height = width = max(shape)
        rows, columns = np.arange(shape[0]) // height, np.arange(0, shape[1], BLOCK) // width
        found: NDArray[np.float32] = values[rows][:, columns]
        return found

    def _scales(self, name: str) -> NDArray[np.float32]:
        entry = self._file.entries[f"{name}_scale"]
        raw = self._file.tensor_bytes(f"{name}_scale")
        return dequantize(entry.format, raw, entry.shape).reshape(self._grid(name))

    def _zero_points(self, name: str, rows: int) -> NDArray[np.float32]:
        """The signed codes that stand for 0, float32 of the scales' shape."""
        grid, stored = self._grid(name), self._file.integers.get(f"{name}_zero_point")
        whole = 1 if stored is None else math.prod(stored.shape)
        if stored is not None and stored.dtype == "I8" and whole == math.prod(grid):
            return self._file.tensor_bytes(f"{name}_zero_point").view(np.int8).reshape(grid).astype(np.float32)
        bits, per = self._scheme.bits, 32 // self._scheme.bits
        packed = self._scheme.layout == PACKED and grid[0] == rows
        if stored is None or stored.dtype != "I32" or not packed or stored.shape != (-(-rows // per), grid[1]):
            raise _unfit(name, "zero points")
        words = self._file.tensor_bytes(f"{name}_zero_point").view("<u4").reshape(stored.shape)
        codes = (words[:, None, :] >> (bits * np.arange(per, dtype=np.uint32))[None, :, None]) & ((1 << bits) - 1)
        return codes.reshape(-1, grid[1])[:rows].astype(np.float32) - np.float32(1 << (bits - 1))

    def _codes(self, name: str, shape: tuple[int, int]) -> NDArray[np.int8]:
        """Signed codes of a matrix."""
        raw = self._file.tensor_bytes(self._matrices[name])
        return (
            raw.view(np.int8).reshape(shape) if self._scheme.layout == INTEGER else self._unpacked(raw).reshape(shape)
        )

    def _unpacked(self, raw: Bytes) -> NDArray[np.int8]:
        """The signed codes of packed ones, 1-D: the first is lowest, little end first."""
        bits = self._scheme.bits
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (raw[:, None] >> shifts) & np.uint8((1 << bits) - 1)
        return (codes.reshape(-1) - np.uint8(1 << (bits - 1))).view(np.int8)
