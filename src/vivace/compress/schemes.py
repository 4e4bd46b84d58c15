"""Quantisation schemes as data: how many bits, which codes, and which weights share a scale.

A value is read back as `code * scale + offset`. What `offset` may be is the scheme's kind of grid; what shares one
scale is its granularity. Nothing here computes.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vivace.compress.arrays import on_host, single
from vivace.numerics import nested
from vivace.types.errors import ConfigError

Granularity = Literal["tensor", "channel", "group"]
GridKind = Literal["symmetric", "full_symmetric", "zero_point", "minimum", "nested"]
ScaleType = Literal["F32", "F16"]
Floats = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.int16)


@dataclass(frozen=True, slots=True)
class QuantScheme:
    """How a matrix is quantised.

    Attributes:
        bits: code width, 2 to 8.
        kind: "symmetric": codes -(2^(b-1) - 1) .. 2^(b-1) - 1, offset 0 (the chapter's S = max|x| / 127);
            "full_symmetric": the code -2^(b-1) as well, scales may be negative (GGML's Q4_0);
            "zero_point": codes 0 .. 2^b - 1, offset -zero * scale with a whole zero, so that 0 is met exactly;
            "minimum": codes 0 .. 2^b - 1 and any offset (GGML's Q4_1);
            "nested": 8 bits, codes -128 .. 119, whose high halves are full_symmetric 4-bit codes (numerics/nested.py).
        granularity: one scale a tensor, a channel (row of the matrix) or a group of a row.
        group_size: columns of a group; only for granularity "group".
        scale_type: what scales and offsets are rounded to.
        group_rows: rows of a group, 0 for all: of "group" alone, a tile of rows and columns shares a scale.
        centred: of grids with an offset: codes are -2^(b-1) .. 2^(b-1) - 1, so that offsets are small (Q8_M).

    Raises:
        ConfigError: a value is out of range, or the group size does not belong to the granularity.
    """

    bits: int
    kind: GridKind = "symmetric"
    granularity: Granularity = "channel"
    group_size: int | None = None
    scale_type: ScaleType = "F32"
    group_rows: int = 1
    centred: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"A code of {self.bits} bits was asked for.", "Choose 2 to 8 bits.")
        if self.kind == "nested" and self.bits != 8:
            raise ConfigError(f"Nested codes have 8 bits, not {self.bits}.", "Leave 'bits' out, or use another format.")
        if (self.group_size is None) != (self.granularity != "group"):
            raise ConfigError(
                f"Granularity {self.granularity!r} and group size {self.group_size} do not belong together.",
                "Give a group size with granularity 'group', and only there.",
            )
        if self.group_rows < 0 or (self.group_rows != 1 and self.granularity != "group"):
            raise ConfigError(
                f"Groups of {self.group_rows} rows.", "Choose 1, more, or 0 for all; with granularity 'group'."
            )
        if self.group_size is not None and self.group_size < 2:
            raise ConfigError(f"The group size is {self.group_size}.", "Choose 2 or more columns a group.")

    @property
    def low(self) -> int:
        """Smallest code."""
        if self.kind == "nested":
            return nested.LOWEST
        if self.kind == "symmetric":
            return 1 - (1 << (self.bits - 1))
        return -(1 << (self.bits - 1)) if self.kind == "full_symmetric" or self.centred else 0

    @property
    def high(self) -> int:
        """Largest code."""
        if self.kind == "nested":
            return nested.HIGHEST
        return (1 << (self.bits - 1)) - 1 if self.is_symmetric or self.centred else (1 << self.bits) - 1

    @property
    def is_symmetric(self) -> bool:
        """Whether the offset is 0."""
        return self.kind in ("symmetric", "full_symmetric", "nested")

    @property
    def coarsest(self) -> "QuantScheme":
        """The grid that decides what is lost: of nested codes their high halves, else the scheme itself."""
        return replace(self, bits=4, kind="full_symmetric") if self.kind == "nested" else self

    def grouped(self, matrix: NDArray[Number]) -> NDArray[Number]:
        """A view (rows, groups, columns) of a matrix in which each [row, group] shares one scale, tiles aside.

        Raises:
            ConfigError: the group size does not divide the row; the message names sizes that do.
        """
        rows, columns = matrix.shape
        if self.granularity == "tensor":
            return matrix.reshape(1, 1, rows * columns)
        size = self.group_size or columns
        if columns % size:
            fitting = [n for n in range(2, columns + 1) if columns % n == 0 and n <= 4 * size]
            raise ConfigError(
                f"Groups of {size} do not divide a row of {columns} weights.",
                f"Choose a group size of {', '.join(map(str, fitting[-6:]))}, or one scale a channel.",
            )
        return matrix.reshape(rows, columns // size, size)


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Scales and offsets, float32 (rows, groups): value = code * scale + offset."""

    scales: Floats
    offsets: Floats


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedMatrix:
    """Codes int16 of the matrix's shape, with the scheme and the affine maps they are read back by."""

    scheme: QuantScheme
    codes: NDArray[np.int16]
    affine: Affine

    def dequantize(self) -> Floats:
        """float32 of the matrix's shape: code * scale + offset."""
        groups = self.scheme.grouped(single(self.codes))
        values: Floats = groups * self.affine.scales[:, :, None] + self.affine.offsets[:, :, None]
        return values.reshape(self.codes.shape)

    def on_host(self) -> "QuantizedMatrix":
        """The same as numpy arrays."""
        affine = Affine(on_host(self.affine.scales), on_host(self.affine.offsets))
        return QuantizedMatrix(self.scheme, on_host(self.codes), affine)

    @property
    def zero_points(self) -> NDArray[np.int16] | None:
        """The code that stands for 0 in each [row, group], for grids of kind "zero_point"."""
        if self.scheme.kind != "zero_point":
            return None
        points: NDArray[np.int16] = np.rint(-self.affine.offsets / self.affine.scales).astype(np.int16)
        return points
