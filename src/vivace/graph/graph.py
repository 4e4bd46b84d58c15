"""An op list with the widths of its buffers: what architectures write, passes rewrite and executors run."""

from dataclasses import dataclass

from vivace.graph.ops import Op
from vivace.types.model import ModelSpec


@dataclass(frozen=True, slots=True)
class Graph:
    """`ops` in execution order; `widths` maps buffer name to row width; `output` is the logits buffer, (L, vocab)."""

    spec: ModelSpec
    ops: tuple[Op, ...]
    widths: dict[str, int]
    output: str
