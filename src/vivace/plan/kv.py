"""What keys and values weigh: bytes of a KV cache from a model's shape, as the executors allocate it.

Counted in whole blocks, since that is what is allocated. Chapter 18.1.2 (MHA, GQA and MQA).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vivace.numerics.kv_formats import KvFormat, bytes_by_kind, layer_formats, local_reach
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The numbers of a model that its KV cache hangs on."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    local_layers: tuple[bool, ...] = ()  # which layers keep the last `local_window` positions only; (): none
    local_window: int = 0

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give at least 1.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_kv_heads} KV heads cannot be shared by {self.num_heads} heads.",
                "The number of KV heads must divide the number of heads.",
            )

    @property
    def kind(self) -> str:
        """MHA, GQA or MQA."""
        if self.num_kv_heads == self.num_heads:
            return "MHA"
        return "MQA" if self.num_kv_heads == 1 else "GQA"


def shape_of(spec: ModelSpec) -> AttentionShape:
    """The shape of a model."""
    attention = spec.attention
    sizes = (spec.num_layers, attention.num_heads, attention.num_kv_heads, attention.head_dim)
    return AttentionShape(*sizes, attention.local_layers, attention.local_window)


@dataclass(frozen=True, slots=True)
class KvPlan:
    """The KV cache of `num_sequences` sequences of `context_length` tokens each.

    `num_blocks` are those of layers that see everything; `num_local_blocks` those of layers that see a window, as a
    sequence holds them that has so many tokens behind it. `mha_bytes` is what the same would take with a KV head for
    every head, `f16_bytes` what it would take in 16 bits, `unbounded_bytes` if layers with a window kept everything.
    """

    shape: AttentionShape
    kv_format: str
    context_length: int
    num_sequences: int
    num_blocks: int
    bytes_per_block: int
    num_local_blocks: int
    bytes_per_local_block: int
    mha_bytes: int
    f16_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        return self.num_blocks * self.bytes_per_block + self.num_local_blocks * self.bytes_per_local_block

    @property
    def unbounded_bytes(self) -> int:
        """Bytes if every layer with a window kept everything."""
        if not self.shape.local_window:
            return self.total_bytes
        return self.num_blocks * (self.bytes_per_block + self.bytes_per_local_block)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of one position over all layers, less what a mixed format keeps beside for the first and the latest."""
        local = self.bytes_per_local_block if self.shape.local_window else 0
        return (self.bytes_per_block + local) / BLOCK_SIZE

    @property
    def saved_by_windows(self) -> float:
        """Share of the bytes that layers with a window save by keeping no more than it, 0 to 1."""
        return 1 - self.total_bytes / self.unbounded_bytes

    @property
    def saved_by_sharing(self) -> float:
        """Share of MHA's bytes that GQA or MQA saves, 0 to 1."""
        return 1 - self.total_bytes / self.mha_bytes

    @property
    def saved_by_format(self) -> float:
        """Share of the 16-bit bytes that the format saves, 0 to 1."""
        return 1 - self.total_bytes / self.f16_bytes


def plan_kv(
    shape: AttentionShape,
    context_length: int,
    num_sequences: int = 1,
    kv_format: str | Sequence[str] = DEFAULT_KV_FORMAT,
) -> KvPlan:
    """Bytes of a KV cache.

    Args:
        shape: of the model; `shape_of` makes it from a ModelSpec.
        context_length: tokens of each sequence, prompt and answer together.
        num_sequences: sequences at the same time, that share nothing.
        kv_format: one row of KV_FORMATS, or one a layer.

    Raises:
        ConfigError: a number is below 1, or a format is unknown or cannot hold heads of this size.
    """
    for name, value in (("context_length", context_length), ("num_sequences", num_sequences)):
        if value < 1:
            raise ConfigError(f"{name} is {value}.", "Give at least 1.")
    local = shape.local_layers or (False,) * shape.num_layers
    formats = layer_formats(kv_format, shape.num_layers, shape.head_dim, local)
    plain = layer_formats("f16", shape.num_layers, shape.head_dim)
    each = -(-context_length // BLOCK_SIZE)
    window, first = local_reach(formats, shape.local_window)
    dead = max(0, max(0, context_length // BLOCK_SIZE * BLOCK_SIZE - window) // BLOCK_SIZE - first // BLOCK_SIZE)
    num_blocks, num_local = num_sequences * each, num_sequences * (each - dead) if window else 0

    def bytes_of(rows: Sequence[KvFormat], num_kv_heads: int) -> tuple[int, int]:
        return bytes_by_kind(rows, local, num_kv_heads, shape.head_dim)

    def total_of(rows: Sequence[KvFormat], num_kv_heads: int) -> int:
        main_bytes, local_bytes = bytes_of(rows, num_kv_heads)
        return num_blocks * main_bytes + num_local * local_bytes

    main_bytes, local_bytes = bytes_of(formats, shape.num_kv_heads)
    return KvPlan(
        shape=shape,
        kv_format=kv_format if isinstance(kv_format, str) else ",".join(kv_format),
        context_length=context_length,
        num_sequences=num_sequences,
        num_blocks=num_blocks,
        bytes_per_block=main_bytes,
        num_local_blocks=num_local,
        bytes_per_local_block=local_bytes,
        mha_bytes=total_of(formats, shape.num_heads),
        f16_bytes=total_of(plain, shape.num_kv_heads),
    )
