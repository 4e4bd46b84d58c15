"""Shapes of published decoder-only models, to plan for a number of parameters of which nothing else is known."""

import math
from dataclasses import dataclass, replace

from vivace.plan.kv import AttentionShape
from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the bytes of a model hang on. `num_params` counts a tied embedding once."""

    name: str
    num_params: int
    hidden_size: int
    ffn_size: int
    vocab_size: int
    attention: AttentionShape
    tied: bool

    @property
    def embedding_params(self) -> int:
        """Weights of the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def head_params(self) -> int:
        """Weights of the head; none of its own when it is tied to the embedding."""
        return 0 if self.tied else self.embedding_params

    @property
    def block_params(self) -> int:
        """All other weights."""
        return self.num_params - self.embedding_params - self.head_params


def _row(
    name: str, params: float, sizes: tuple[int, int, int], heads: tuple[int, int, int, int], *, tied: bool
) -> ModelShape:
    hidden, ffn, vocab = sizes
    return ModelShape(name, int(params * 1e6), hidden, ffn, vocab, AttentionShape(*heads), tied)


SHAPES = (
    _row("SmolLM2 135M", 134.5, (576, 1536, 49152), (30, 9, 3, 64), tied=True),
    _row("Gemma 3 270M", 268.1, (640, 2048, 262144), (18, 4, 1, 256), tied=True),
    _row("Llama 3.2 1B", 1236, (2048, 8192, 128256), (16, 32, 8, 64), tied=True),
    _row("Llama 3.2 3B", 3213, (3072, 8192, 128256), (28, 24, 8, 128), tied=True),
    _row("Llama 3 8B", 8030, (4096, 14336, 128256), (32, 32, 8, 128), tied=False),
    _row("Qwen 2.5 14B", 14770, (5120, 13824, 152064), (48, 40, 8, 128), tied=False),
    _row("Qwen 2.5 32B", 32764, (5120, 27648, 152064), (64, 40, 8, 128), tied=False),
    _row("Llama 3 70B", 70554, (8192, 28672, 128256), (80, 64, 8, 128), tied=False),
    _row("Llama 3 405B", 405853, (16384, 53248, 128256), (126, 128, 8, 128), tied=False),
)
"""From the configuration files that the models are published with; from the smallest."""


def shape_for(num_params: float) -> ModelShape:
    """The published shape nearest in size, with the number of parameters that was asked for.

    Raises:
        ConfigError: fewer parameters than any plan makes sense for.
    """
    if not num_params >= 1e7:
        raise ConfigError(f"{num_params:g} parameters are too few to plan for.", "Give a size such as 70B or 135M.")
    nearest = min(SHAPES, key=lambda shape: abs(math.log(shape.num_params / num_params)))
    shape = replace(nearest, num_params=int(num_params))
    if shape.block_params > 0:
        return shape
    smaller = [row for row in SHAPES if row.embedding_params + row.head_params < num_params]
    return replace(smaller[-1] if smaller else SHAPES[0], num_params=int(num_params))
