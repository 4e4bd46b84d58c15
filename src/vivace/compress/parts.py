"""The parts of a model that are given one format each when precision is mixed.

Embedding and head are divided by rows: tokenizers number tokens by how often they met them when they were made, so that
a few hundred early rows are most of what a text reads and writes, and bear few bits worst. Other matrices are whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vivace.graph.weights import weight_shapes
from vivace.types.model import ModelSpec

BAND_ENDS = (64, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Where a band of an embedding or head ends and the next begins; measured, see docs/compression.md."""
_MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
_ENDS = {"embed": "embed.weight", "lm_head": "lm_head.weight"}


@dataclass(frozen=True, slots=True)
class ModelPart:
    """Matrices that are given one format together; `rows` (begin, end) of the only one, or None: all of them."""

    matrices: tuple[str, ...]
    rows: tuple[int, int] | None = None

    def num_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many weights it has."""
        if self.rows is not None:
            return (self.rows[1] - self.rows[0]) * shapes[self.matrices[0]][1]
        return sum(math.prod(shapes[name]) for name in self.matrices)


def model_parts(spec: ModelSpec) -> dict[str, ModelPart]:
    """The parts of a model, by a name for people."""
    shapes = weight_shapes(spec)
    ends = [*(end for end in BAND_ENDS if end < spec.vocab_size), spec.vocab_size]
    parts: dict[str, ModelPart] = {}
    for label, name in _ENDS.items():
        if name in shapes and len(ends) == 1:
            parts[label] = ModelPart((name,))
        elif name in shapes:
            bands = zip([0, *ends], ends, strict=False)
            parts |= {f"{label}.rows.{begin}-{end}": ModelPart((name,), (begin, end)) for begin, end in bands}
    for layer in range(spec.num_layers):
        names = (f"layers.{layer}.{matrix}" for matrix in _MATRICES)
        parts |= {name: ModelPart((f"{name}.weight",)) for name in names}
    return parts
