"""The table of KV formats: how keys and values of a position are coded, what they weigh, and numpy twins of the codes.

Every position has its own scales, one for each head and half, so what a position is stored as never depends on its
neighbours, on chunks or on batches. The twins give what a stored position reads back as; the native core has the same
table in `native/kernels/kv_format.h`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE

Rows = NDArray[np.float32]
SCALE_BYTES = 2  # float16
KV_LAYOUT = 2
"""Number of the way blocks lie in memory. Raise it when any format's bytes are put elsewhere or mean something else:
blocks on disk are found by it, and those of another number read as absent. 2: bfloat16 in pairs."""
EXACT_FIRST, EXACT_RECENT = 16, 64
"""Positions that a mixed format keeps in float16 as well: the first ones, and the latest; multiples of BLOCK_SIZE."""


@dataclass(frozen=True, slots=True)
class KvCode:
    """How one half of a position is coded: `bits` a lane, `num_scales` float16 numbers beside the codes of a head.

    `round_trip` maps float32 (..., head_dim) to what is read back of it. `lanes` must divide the head size.
    """

    bits: int
    num_scales: int
    round_trip: Callable[[Rows], Rows]
    lanes: int = 1

    def num_bytes(self, head_dim: int) -> int:
        """Bytes of one position of one head."""
        return head_dim * self.bits // 8 + self.num_scales * SCALE_BYTES


@dataclass(frozen=True, slots=True)
class KvFormat:
    """One row of the table. `rotates`: heads are turned by a Hadamard matrix before they are coded.

    Turning spreads an outlier over all lanes of the head (QuaRot, Ashkboos et al., 2024). Queries are turned like keys,
    which leaves every score as it was, and what attention sums up of the values is turned back.

    `mixed`: the first positions and the latest are kept in float16 beside their codes, and read there (`is_exact`).
    """

    name: str
    keys: KvCode
    values: KvCode
    rotates: bool
    mixed: bool = False

    def keep_keys(self, keys: Rows) -> Rows:
        """What attention reads of keys, float32 (..., head_dim), once they are stored; not turned."""
        return self._keep(self.keys, keys)

    def keep_values(self, values: Rows) -> Rows:
        """What attention reads of values once they are stored, as `keep_keys`."""
        return self._keep(self.values, values)

    def keep_exact(self, x: Rows) -> Rows:
        """What attention reads of the float16 copies of keys or values, as `keep_keys`; of a mixed format."""
        return self._keep(F16, x)

    def _keep(self, code: KvCode, x: Rows) -> Rows:
        return hadamard(code.round_trip(hadamard(x))) if self.rotates else code.round_trip(x)

    def bytes_per_position(self, num_kv_heads: int, head_dim: int) -> int:
        """Bytes that the keys and values of one position take in one layer."""
        return num_kv_heads * (self.keys.num_bytes(head_dim) + self.values.num_bytes(head_dim))


def is_exact(position: int, key: int) -> bool:
    """Whether a row at `position` reads `key` in float16 where a layer's format is mixed.

    The latest are counted in whole blocks, 49 to 64 positions, the row's own among them. Nothing but the two positions
    decides, so what a row reads depends neither on chunks nor on batches nor on a prefix that was found.
    """
    return key < EXACT_FIRST or key >= (position // BLOCK_SIZE + 1) * BLOCK_SIZE - EXACT_RECENT


def hadamard(x: Rows) -> Rows:
    """The orthonormal Hadamard transform of the last axis, in the core's order of additions; twice is nothing.

    A head size that is no power of two is cut into pieces of the largest power of two that divides it.
    """
    head_dim = x.shape[-1]
    size = head_dim & -head_dim
    turned = x.astype(np.float32)
    stride = 1
    while stride < size:
        pairs = turned.reshape(-1, 2, stride)
        turned = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1)
        stride *= 2
    norm = np.float32(1.0) / np.sqrt(np.float32(size))
    whole: Rows = turned.reshape(x.shape) * norm
    return whole


def _clamp(x: Rows) -> Rows:
    """To what float16 holds."""
    return np.clip(x, np.float32(-65504.0), np.float32(65504.0))


def _half(x: Rows) -> Rows:
    """Rounded to float16."""
    return x.astype(np.float16).astype(np.float32)


def _inverse(scale: Rows) -> Rows:
    return np.divide(np.float32(1.0), scale, out=np.zeros_like(scale), where=scale > 0)


def round_f16(x: Rows) -> Rows:
    """As float16, clamped to its range."""
    return _half(_clamp(x))


def round_bf16(x: Rows) -> Rows:
    """As bfloat16, nearest, ties to even."""
    bits = np.ascontiguousarray(_clamp(x)).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def round_int8(x: Rows) -> Rows:
    """scale * code with code in [-127, 127]; the float16 scale is the largest magnitude of the head over 127."""
    x = _clamp(x)
    scale = _half(np.abs(x).max(axis=-1, keepdims=True) / np.float32(127.0))
    codes: Rows = np.clip(np.rint(x * _inverse(scale)), -127, 127).astype(np.float32)
    return codes * scale


def round_int4(x: Rows) -> Rows:
    """scale * code + low with code in [0, 15]; float16 scale and low span the head's least and largest lane."""
    x = _clamp(x)
    least = x.min(axis=-1, keepdims=True)
    scale = _half((x.max(axis=-1, keepdims=True) - least) / np.float32(15.0))
    low = _half(least)
    codes: Rows = np.clip(np.rint((x - low) * _inverse(scale)), 0, 15).astype(np.float32)
    return codes * scale + low


F16 = KvCode(16, 0, round_f16)
BF16 = KvCode(16, 0, round_bf16)
INT8 = KvCode(8, 1, round_int8)
INT4 = KvCode(4, 2, round_int4, lanes=32)  # two lanes share a byte, in vectors of 16 bytes

KV_FORMATS: dict[str, KvFormat] = {
    row.name: row
    for row in (
        KvFormat("f16", F16, F16, rotates=False),
        KvFormat("bf16", BF16, BF16, rotates=False),
        KvFormat("int8", INT8, INT8, rotates=False),
        KvFormat("int8-int4", INT8, INT4, rotates=True),
        KvFormat("int4", INT4, INT4, rotates=True),
        KvFormat("int4+f16", INT4, INT4, rotates=True, mixed=True),
    )
}


def holds(row: KvFormat, head_dim: int) -> bool:
    """Whether a format can hold heads of so many lanes."""
    return head_dim % max(row.keys.lanes, row.values.lanes) == 0


def spread(choice: str, num_layers: int) -> tuple[str, ...]:
    """The name of the format of each layer, from a list as a command line has it.

    Args:
        choice: `int8` for all layers, or runs of layers in order, as in `f16:2,int4:*,f16:2`; the one run without a
            number (`*`, or nothing beside others) takes the layers that are left.
        num_layers: layers of the model.

    Raises:
        ConfigError: a run has no number of at least 1, or more than one takes what is left.
    """
    runs = [part.strip().partition(":") for part in choice.split(",")]
    counts = [0 if text in ("", "*") else int(text) if text.isascii() and text.isdigit() else -1 for *_, text in runs]
    if min(counts) < 0 or counts.count(0) > 1 or any(text == "0" for *_, text in runs):
        raise ConfigError(f"{choice!r} is no list of KV formats.", "Write it as int8, or as f16:2,int4:*,f16:2.")
    left = num_layers - sum(counts)
    return tuple(name for (name, *_), count in zip(runs, counts, strict=True) for _ in range(count or max(left, 0)))


def layer_formats(
    choice: str | Sequence[str], num_layers: int, head_dim: int, local: Sequence[bool] = ()
) -> tuple[KvFormat, ...]:
    """The format of every layer.

    Args:
        choice: one name for all layers, one a layer, or a list as `spread` reads it.
        num_layers: layers of the model.
        head_dim: lanes of a head, which some formats need to be a multiple of 32.
        local: which layers see a window of their own. They keep little however long a text gets: where a mixed format
            is chosen, all of theirs is in float16.

    Raises:
        ConfigError: a name is unknown, their number is wrong, or a format cannot hold heads of this size.
    """
    names = spread(choice, num_layers) if isinstance(choice, str) else tuple(choice)
    if len(names) != num_layers:
        raise ConfigError(
            f"{len(names)} KV formats are given for {num_layers} layers.", "Give one name, or one for each layer."
        )
    unknown = [name for name in names if name not in KV_FORMATS]
    if unknown:
        raise ConfigError(f"There is no KV format {unknown[0]!r}.", f"Known are: {', '.join(KV_FORMATS)}.")
    rows = [KV_FORMATS[name] for name in names]
    formats = tuple(
        KV_FORMATS["f16"] if row.mixed and is_local else row
        for row, is_local in zip(rows, local or (False,) * num_layers, strict=True)
    )
    for row in formats:
        if not holds(row, head_dim):
            raise ConfigError(
                f"The KV format {row.name!r} cannot hold heads of {head_dim} lanes.", "Choose int8, f16 or bf16."
            )
    return formats


def bytes_per_block(formats: Sequence[KvFormat], num_kv_heads: int, head_dim: int) -> int:
    """Bytes of one KV block (BLOCK_SIZE positions) over all layers, as the executors allocate it."""
    return BLOCK_SIZE * sum(row.bytes_per_position(num_kv_heads, head_dim) for row in formats)


def bytes_by_kind(
    formats: Sequence[KvFormat], local: Sequence[bool], num_kv_heads: int, head_dim: int
) -> tuple[int, int]:
    """Bytes of a main and of a local block, where layers with a window and float16 copies have blocks of their own."""
    main = [row for row, is_local in zip(formats, local, strict=True) if not is_local]
    copies = [KV_FORMATS["f16"] for row in formats if row.mixed]
    others = [row for row, is_local in zip(formats, local, strict=True) if is_local]
    return bytes_per_block(main, num_kv_heads, head_dim), bytes_per_block(others + copies, num_kv_heads, head_dim)


def local_reach(formats: Sequence[KvFormat], local_window: int) -> tuple[int, int]:
    """Positions whose local blocks a sequence needs: the latest so many, and the first; (0, 0) without local blocks.

    Args:
        formats: of every layer.
        local_window: positions that layers with a window see; 0: there are none.
    """
    if not any(row.mixed for row in formats):
        return local_window, 0
    return max(local_window, EXACT_RECENT), EXACT_FIRST
