"""Which stored formats compression writes, a row each: the grid of the format, how codes become bytes, who runs them.

Every row names the kernel that computes with it here (native/kernels/linear.inc), so that nothing is written which no
kernel runs. Codes of fewer bits than the format has may be stored in it; the file is then no smaller, and
`stored_bits` says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.compress.schemes import Floats, GridKind, QuantizedMatrix, QuantScheme
from vivace.numerics import nested, six_bits
from vivace.numerics.formats import FORMATS
from vivace.numerics.wide_blocks import FIVE, FOUR, SIX, WideBlocks, fifth_bits, nibbles
from vivace.types.errors import ConfigError
from vivace.types.weights import FLOAT_FORMATS, TensorFormat

BLOCK = 32  # weights that share a scale in the formats below, unless they say otherwise
Bytes = NDArray[np.uint8]
Codes = NDArray[np.int16]
Pack = Callable[[Codes, Bytes, Bytes], Bytes]
"""(codes (n, block), scales as bytes (n, 2), offsets as bytes (n, 2)) -> blocks (n, block_bytes)."""


@dataclass(frozen=True, slots=True)
class Container:
    """A stored format.

    Attributes:
        format: as the file names it.
        bits: widest code it holds.
        kinds: kinds of grid it holds, the one that uses it best first.
        kernel: the instance of the native linear kernel that reads it.
        pack: codes and halves to bytes.
        block: weights that share a scale.
        centred: codes of its grids with an offset are signed.
    """

    format: TensorFormat
    bits: int
    kinds: tuple[GridKind, ...]
    kernel: str
    pack: Pack
    block: int = BLOCK
    centred: bool = False

    def scheme(
        self, bits: int | None = None, group_size: int | None = None, *, zero_point: bool = False, group_rows: int = 1
    ) -> QuantScheme:
        """The grid that is stored, at `bits` (its own when None) in groups of `group_size` (a block when None) columns.

        With `zero_point`, offsets are whole numbers of steps, so that 0 is a code's own. `group_rows` rows share a
        scale (0: all), which is stored in each of their blocks.

        Raises:
            ConfigError: more bits than the container has, groups that are no multiple of its blocks, or a zero point
                where there are no offsets.
        """
        bits, group_size = self.bits if bits is None else bits, group_size or self.block
        if bits > self.bits:
            raise ConfigError(f"{self.format} holds {self.bits} bits, not {bits}.", "Choose a wider format.")
        if group_size % self.block:
            raise ConfigError(
                f"{self.format} stores a scale for {self.block} weights; groups of {group_size} cut its blocks.",
                f"Choose a multiple of {self.block}.",
            )
        if zero_point and "zero_point" not in self.kinds:
            raise ConfigError(
                f"{self.format} has no offsets for a zero point.", "Use Q4_1, Q5_1 or Q8_M, or leave it out."
            )
        kind = "zero_point" if zero_point else self.kinds[0]
        return QuantScheme(bits, kind, "group", group_size, "F16", group_rows, self.centred)


def pack_matrix(matrix: QuantizedMatrix, format: TensorFormat) -> Bytes:
    """The stored bytes of a quantised matrix, 1-D; reading them gives `matrix.dequantize()` bit for bit.

    Raises:
        ConfigError: the format does not hold this grid, or rows are no whole number of blocks.
    """
    container, scheme = container_of(format), matrix.scheme
    (rows, columns), block = matrix.codes.shape, container.block
    if columns % block:
        raise ConfigError(f"Rows of {columns} weights are no whole number of {format} blocks.", "Store them as F16.")
    mixed_up = scheme.centred != container.centred
    if scheme.kind not in container.kinds or scheme.bits > container.bits or scheme.scale_type != "F16" or mixed_up:
        raise ConfigError(f"{format} does not hold {scheme.bits}-bit codes of kind {scheme.kind!r}.")
    scheme.grouped(matrix.codes)  # refuses groups that do not divide the row
    repeats = columns // block // matrix.affine.scales.shape[1] if scheme.granularity != "tensor" else columns // block
    if scheme.granularity == "group" and scheme.group_size is not None and scheme.group_size % block:
        raise ConfigError(f"Groups of {scheme.group_size} cut the blocks of {format}.", f"Use multiples of {block}.")
    scales, offsets = (_halves(v, rows, repeats) for v in (matrix.affine.scales, matrix.affine.offsets))
    return container.pack(matrix.codes.reshape(-1, block), scales, offsets).reshape(-1)


def container_of(format: TensorFormat) -> Container:
    """The row of a format.

    Raises:
        ConfigError: compression does not write the format.
    """
    if format not in CONTAINERS:
        raise ConfigError(f"Compression does not write {format}.", f"Choose one of {', '.join(CONTAINERS)}.")
    return CONTAINERS[format]


def stored_bits(format: TensorFormat) -> float:
    """Bits that the file spends on one weight, scales included."""
    return FORMATS[format].bits_per_weight


def _halves(values: Floats, rows: int, repeats: int) -> Bytes:
    """Scales or offsets as the bytes of float16, one for each block of the matrix in row order."""
    spread = np.repeat(np.broadcast_to(values, (rows, values.shape[1])), repeats, axis=1)
    return spread.astype("<f2").reshape(-1, 1).view(np.uint8)


def _pack_q4_0(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
    return np.concatenate([scales, nibbles(codes + 8)], axis=1)


def _pack_q4_1(codes: Codes, scales: Bytes, offsets: Bytes) -> Bytes:
    return np.concatenate([scales, offsets, nibbles(codes)], axis=1)


def _pack_q5_0(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
    return np.concatenate([scales, fifth_bits(codes + 16), nibbles(codes + 16)], axis=1)


def _pack_q5_1(codes: Codes, scales: Bytes, offsets: Bytes) -> Bytes:
    return np.concatenate([scales, offsets, fifth_bits(codes), nibbles(codes)], axis=1)


def _pack_q6_0(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
    return six_bits.pack(codes, scales)


def _pack_q8_0(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
    return np.concatenate([scales, codes.astype(np.int8).view(np.uint8)], axis=1)


def _pack_q8_m(codes: Codes, scales: Bytes, offsets: Bytes) -> Bytes:
    return np.concatenate([scales, offsets, codes.astype(np.int8).view(np.uint8)], axis=1)


def _wide(blocks: WideBlocks) -> Pack:
    def pack(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
        return blocks.stored(codes, scales)

    return pack


def _pack_n8_0(codes: Codes, scales: Bytes, _offsets: Bytes) -> Bytes:
    return nested.pack(codes, scales)


CONTAINERS: dict[TensorFormat, Container] = {
    row.format: row
    for row in (
        Container(TensorFormat.Q8_0, 8, ("symmetric", "full_symmetric"), "Q8Sym", _pack_q8_0),
        Container(TensorFormat.Q8_64, 8, ("symmetric", "full_symmetric"), "Q8Sym", _pack_q8_0, block=64),
        Container(TensorFormat.Q6_64, 6, ("full_symmetric", "symmetric"), "Q8Sym", _wide(SIX), block=64),
        Container(TensorFormat.Q5_64, 5, ("full_symmetric", "symmetric"), "Q8Sym", _wide(FIVE), block=64),
        Container(TensorFormat.Q4_64, 4, ("full_symmetric", "symmetric"), "Q4Sym", _wide(FOUR), block=64),
        Container(TensorFormat.Q8_M, 8, ("minimum", "zero_point"), "Q8Min", _pack_q8_m, centred=True),
        Container(TensorFormat.N8_0, 8, ("nested",), "nested_panel; Q4Sym for the high halves", _pack_n8_0),
        Container(TensorFormat.Q6_0, 6, ("full_symmetric", "symmetric"), "Q8Sym", _pack_q6_0),
        Container(TensorFormat.Q5_0, 5, ("full_symmetric", "symmetric"), "Q8Sym", _pack_q5_0),
        Container(TensorFormat.Q5_1, 5, ("minimum", "zero_point"), "Q8Min", _pack_q5_1),
        Container(TensorFormat.Q4_0, 4, ("full_symmetric", "symmetric"), "Q4Sym", _pack_q4_0),
        Container(TensorFormat.Q4_1, 4, ("minimum", "zero_point"), "Q4Min", _pack_q4_1),
    )
}
KERNELS: dict[TensorFormat, str] = {
    **{format: row.kernel for format, row in CONTAINERS.items()},
    **dict.fromkeys(FLOAT_FORMATS, "float_panel"),
    TensorFormat.Q4_K: "Q4Min",
    TensorFormat.Q5_K: "Q8Min",
    TensorFormat.Q6_K: "Q8Sym16",
}
"""What runs a format: those above, and those that a model may come in and keep."""
