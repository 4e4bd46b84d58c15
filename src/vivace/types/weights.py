"""How weights are handed from a file to an executor, under vivace's own names.

Names: `embed.weight`, `final_norm.weight`, `lm_head.weight` (absent when tied), and per layer i under `layers.{i}.`:
`attn_norm.weight`, `attn.q.weight|bias`, `attn.k.weight|bias`, `attn.v.weight|bias`, `attn.q_norm.weight`,
`attn.k_norm.weight`, `attn.o.weight`, `attn_post_norm.weight`, `mlp_norm.weight`, `mlp.gate.weight`, `mlp.up.weight`,
`mlp.down.weight`, `mlp_post_norm.weight`.
Norm weights are stored as they multiply: a family that stores w - 1 is corrected by the file reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TensorFormat(StrEnum):
    """Element formats vivace reads; the Q formats are GGML's block formats, Q6_0 only ik_llama.cpp's.

    Our own: N8_0 (numerics/nested.py), Q8_M (numerics/middle_blocks.py) and blocks of 64, whose names say so
    (numerics/wide_blocks.py).
    """

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q8_0 = "Q8_0"
    Q4_K = "Q4_K"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"
    N8_0 = "N8_0"
    Q8_64 = "Q8_64"
    Q6_64 = "Q6_64"
    Q5_64 = "Q5_64"
    Q4_64 = "Q4_64"
    Q6_0 = "Q6_0"
    Q8_M = "Q8_M"


FLOAT_FORMATS = frozenset({TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16})
"""Formats whose elements are numbers; all others hold codes."""


@dataclass(frozen=True, slots=True)
class RowBand:
    """Rows [begin, end) of a matrix, all in one format."""

    begin: int
    end: int
    format: TensorFormat

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.end - self.begin


BAND_ROWS = 64
"""Bands begin at multiples of this, so that none shares a packed panel of rows with another."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor. `shape` is row-major: (out_features, in_features) for a linear, (n,) for a vector.

    Attributes:
        bands: of a matrix whose rows are in several formats, in order; empty: all are in `format`. `format` is that of
            most rows then, and the stored bytes of the bands follow each other.
    """

    name: str
    shape: tuple[int, ...]
    format: TensorFormat
    num_bytes: int
    bands: tuple[RowBand, ...] = ()

    @property
    def row_bands(self) -> tuple[RowBand, ...]:
        """The bands, or all rows as one."""
        return self.bands or (RowBand(0, self.shape[0], self.format),)


class WeightSource(Protocol):
    """Read access to the weights of one model; stays valid until `close`."""

    def names(self) -> Sequence[str]:
        """All tensor names, in vivace's naming."""
        ...

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        ...

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D, read-only, usually a view of the mapped file; rows of blocks in row order."""
        ...

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32 of `info(name).shape` (a copy)."""
        ...

    def release(self, name: str) -> None:
        """The caller is done with `raw(name)` for now: its pages may leave memory; reading again brings them back."""
        ...

    def close(self) -> None:
        """Release the mapped file."""
        ...
