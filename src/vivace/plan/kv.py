"""What keys and values weigh: bytes of a KV cache from a model's shape, as the executors allocate it.

Counted in whole blocks, since that is what is allocated. Chapter 18.1.2 (MHA, GQA and MQA).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vivace.numerics.kv_formats import bytes_per_block, layer_formats
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
    return AttentionShape(spec.num_layers, attention.num_heads, attention.num_kv_heads, attention.head_dim)


@dataclass(frozen=True, slots=True)
class KvPlan:
    """The KV cache of `num_sequences` sequences of `context_length` tokens each.

    `num_blocks` times `bytes_per_block` is `total_bytes`. `mha_bytes` is what the same would take with a KV head for
    every head, `f16_bytes` what it would take in 16 bits.
    """

    shape: AttentionShape
    kv_format: str
    context_length: int
    num_sequences: int
    num_blocks: int
    bytes_per_block: int
    mha_bytes: int
    f16_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        return self.num_blocks * self.bytes_per_block

    @property
    def bytes_per_token(self) -> float:
        """Bytes of one position over all layers."""
        return self.bytes_per_block / BLOCK_SIZE

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
    num_blocks = num_sequences * -(-context_length // BLOCK_SIZE)
    formats = layer_formats(kv_format, shape.num_layers, shape.head_dim)
    plain = layer_formats("f16", shape.num_layers, shape.head_dim)
    return KvPlan(
        shape=shape,
        kv_format=kv_format if isinstance(kv_format, str) else ",".join(kv_format),
        context_length=context_length,
        num_sequences=num_sequences,
        num_blocks=num_blocks,
        bytes_per_block=bytes_per_block(formats, shape.num_kv_heads, shape.head_dim),
        mha_bytes=num_blocks * bytes_per_block(formats, shape.num_heads, shape.head_dim),
        f16_bytes=num_blocks * bytes_per_block(plain, shape.num_kv_heads, shape.head_dim),
    )
