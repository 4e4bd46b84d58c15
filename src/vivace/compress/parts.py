"""The parts of a model that are given one format each when precision is mixed.

Embedding and head are divided by rows: tokenizers number tokens by how often they met them when they were made, so that
a few hundred early rows are most of what a text reads and writes, and bear few bits worst. Gate and up go together, and
are divided by rows where channels are in an order of what they matter (`channel_order.py`). All else is whole.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from vivace.graph.weights import weight_shapes
from vivace.types.model import ModelSpec
from vivace.types.weights import BAND_ROWS

BAND_ENDS = (64, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Where a band of an embedding or head ends and the next begins; measured, see docs/compression.md."""
CHANNEL_SHARES = (24, 6)
"""A band of channels ends at a twenty-fourth of them, and at a sixth."""
_GROUPS = (("attn.q",), ("attn.k",), ("attn.v",), ("attn.o",), ("mlp.gate", "mlp.up"), ("mlp.down",))
_CHANNELS = _GROUPS[4]
_ENDS = {"embed": "embed.weight", "lm_head": "lm_head.weight"}


@dataclass(frozen=True, slots=True)
class ModelPart:
    """Matrices that are given one format together; `rows` (begin, end) of each, as they are stored, or None: all."""

    matrices: tuple[str, ...]
    rows: tuple[int, int] | None = None

    def num_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many weights it has."""
        if self.rows is not None:
            return (self.rows[1] - self.rows[0]) * sum(shapes[name][1] for name in self.matrices)
        return sum(math.prod(shapes[name]) for name in self.matrices)


def model_parts(spec: ModelSpec, ordered: Container[str] = ()) -> dict[str, ModelPart]:
    """The parts of a model, by a name for people.

    Args:
        spec: what the model is.
        ordered: names of the matrices whose rows are in an order of what they matter.
    """
    shapes = weight_shapes(spec)
    parts: dict[str, ModelPart] = {}
    for label, name in _ENDS.items():
        if name in shapes:
            parts |= _bands(label, (name,), spec.vocab_size, BAND_ENDS)
    shares = (spec.ffn_size // share // BAND_ROWS * BAND_ROWS for share in CHANNEL_SHARES)
    channel_ends = sorted({max(end, BAND_ROWS) for end in shares})
    for layer in range(spec.num_layers):
        for names in _GROUPS:
            matrices = tuple(f"layers.{layer}.{name}.weight" for name in names)
            divides = names == _CHANNELS and matrices[0] in ordered
            parts |= _bands(
                f"layers.{layer}.{'+'.join(names)}", matrices, spec.ffn_size, channel_ends if divides else ()
            )
    return parts


def _bands(label: str, matrices: tuple[str, ...], num_rows: int, wanted: Iterable[int]) -> dict[str, ModelPart]:
    """Bands of rows that end as wanted, those past the last row left out; all rows where there are none."""
    ends = [end for end in wanted if end < num_rows]
    if not ends:
        return {label: ModelPart(matrices)}
    begins = [0, *ends]
    return {
        f"{label}.rows.{begin}-{end}": ModelPart(matrices, (begin, end))
        for begin, end in zip(begins, [*ends, num_rows], strict=True)
    }
