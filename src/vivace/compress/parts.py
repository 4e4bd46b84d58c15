"""The parts of a model that are given one format each when precision is mixed.

Matrices of a layer that read the same input go together. Embedding and head are divided by rows: tokenizers number
tokens by how often they met them when they were made, so that a few hundred early rows are most of what a text reads
and writes, and bear few bits worst.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vivace.graph.weights import weight_shapes
from vivace.types.model import ModelSpec

BAND_ENDS = (64, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Where a band of an embedding or head ends and the next begins; measured, see docs/compression.md."""
_GROUPS = (("attn.q", "attn.k"), ("attn.v",), ("attn.o",), ("mlp.gate", "mlp.up"), ("mlp.down",))
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


def model_parts(spec: ModelSpec, band_ends: Iterable[int] = BAND_ENDS) -> dict[str, ModelPart]:
    """The parts of a model, by a name for people.

    Args:
        spec: what the model is.
        band_ends: where bands of embedding and head end; those past the last row are left out. None: both are whole.
    """
    ends = [*(end for end in band_ends if end < spec.vocab_size), spec.vocab_size]
    shapes = weight_shapes(spec)
    parts: dict[str, ModelPart] = {}
    for label, name in _ENDS.items():
        if name not in shapes:
            continue
        for begin, end in zip([0, *ends], ends, strict=False):
            whole = len(ends) == 1
            rows = None if whole else (begin, end)
            parts[label if whole else f"{label}.rows.{begin}-{end}"] = ModelPart((name,), rows)
    for layer in range(spec.num_layers):
        for names in _GROUPS:
            matrices = tuple(f"layers.{layer}.{name}.weight" for name in names)
            parts[f"layers.{layer}.{'+'.join(names)}"] = ModelPart(matrices)
    return parts
