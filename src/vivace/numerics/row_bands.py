"""Matrices whose rows are in several formats: bands of rows, whose bytes follow each other.

Rows of an embedding are tokens, and tokenizers number tokens by how often they met them: a band of early rows holds
most of what a text reads.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vivace.numerics.formats import dequantize, num_bytes
from vivace.types.errors import ModelFileError
from vivace.types.weights import BAND_ROWS, FLOAT_FORMATS, RowBand, TensorFormat

Bytes = NDArray[np.uint8]


def band_bytes(bands: Sequence[RowBand], num_columns: int) -> list[int]:
    """Bytes of each band of a matrix with rows of `num_columns`.

    Raises:
        ModelFileError: a row is not a whole number of a format's blocks.
    """
    return [num_bytes(band.format, (band.num_rows, num_columns)) for band in bands]


def stored_bytes(bands: Sequence[RowBand], shape: tuple[int, ...]) -> int:
    """Bytes of a tensor, of any number of dimensions where it is one band; errors as `band_bytes`."""
    if len(bands) == 1:
        return num_bytes(bands[0].format, shape)
    return sum(band_bytes(bands, shape[1]))


def first_rows(bands: Sequence[RowBand], num_rows: int) -> tuple[RowBand, ...]:
    """The bands of a matrix cut after so many rows."""
    return tuple(replace(band, end=min(band.end, num_rows)) for band in bands if band.begin < num_rows)


def split_bands(bands: Sequence[RowBand], raw: Bytes, num_columns: int) -> list[Bytes]:
    """Views of the bytes of each band.

    Raises:
        ModelFileError: the number of bytes is not that of the bands.
    """
    ends = np.cumsum(band_bytes(bands, num_columns))
    if raw.size != ends[-1]:
        raise ModelFileError(f"Bands of {ends[-1]} bytes cannot have {raw.size}.", "Get the file again.")
    return np.split(raw, ends[:-1])


def dequantize_bands(bands: Sequence[RowBand], raw: Bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 of `shape`, freshly allocated; errors as `split_bands`."""
    values = np.empty(shape, np.float32)
    for band, piece in zip(bands, split_bands(bands, raw, shape[1]), strict=True):
        values[band.begin : band.end] = dequantize(band.format, piece, (band.num_rows, shape[1]))
    return values


def main_format(bands: Sequence[RowBand]) -> TensorFormat:
    """The format of most rows."""
    rows: dict[TensorFormat, int] = {}
    for band in bands:
        rows[band.format] = rows.get(band.format, 0) + band.num_rows
    return max(rows, key=lambda format: rows[format])


def check_bands(bands: Sequence[RowBand], num_rows: int) -> None:
    """Bands follow each other, from row 0 to the last, begin at multiples of BAND_ROWS, and hold codes of one level.

    Raises:
        ModelFileError: they do not.
    """
    ends = [0, *(band.end for band in bands)]
    follow = [band.begin for band in bands] == ends[:-1] and ends[-1] == num_rows
    if not follow or any(band.num_rows < 1 or band.begin % BAND_ROWS for band in bands):
        raise ModelFileError(
            f"Bands of rows that begin at {', '.join(str(band.begin) for band in bands)} do not make {num_rows} rows.",
            f"Each begins where the one before it ends, at a multiple of {BAND_ROWS}.",
        )
    refused = [band.format for band in bands if band.format in FLOAT_FORMATS or band.format is TensorFormat.N8_0]
    if refused and len(bands) > 1:
        raise ModelFileError(
            f"A band of rows is stored in {refused[0]}.", "Bands hold codes of one level: Q4_0, Q5_0, Q6_0, Q8_0 ..."
        )
