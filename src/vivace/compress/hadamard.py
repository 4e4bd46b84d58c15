"""Hadamard rotation: the residual stream and the values of each head are turned, so that no channel stands out.

Ashkboos et al., "QuaRot" (2024), the two rotations that cost nothing at run time: R1 of the residual stream, folded
into what writes it and what reads it (norm weights first go into the linears after them), and R2 of each value head,
folded into the value and output projections. A width that is no power of two is turned in blocks: 576 as nine
blocks of 64.

R1 needs layers whose norms all stand before their linears; where a norm follows one (Gemma), only R2 is done. A head
that shares the embedding's matrix gets one of its own, because the final norm's weight is folded into it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vivace.compress.schemes import Floats
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.graph.ops import Attention, Linear, RmsNorm
from vivace.numerics.formats import num_bytes
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource


def block_hadamard(width: int, seed: int = 0) -> Floats:
    """A rotation, float32 (width, width): Hadamard blocks of the largest power of two in `width`, signs drawn first."""
    size = width & -width
    block = np.ones((1, 1), np.float32)
    while len(block) < size:
        block = np.block([[block, block], [block, -block]])
    block /= np.float32(np.sqrt(size))
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), width)
    turned: Floats = np.kron(np.eye(width // size, dtype=np.float32), block) * signs[:, None]
    return np.ascontiguousarray(turned, dtype=np.float32)


def rotated_spec(spec: ModelSpec) -> ModelSpec:
    """What the model is after the rotation: embeddings are no longer tied where the residual stream turns."""
    return replace(spec, tied_embeddings=False) if turns_residual(build_graph(spec)) else spec


def turns_residual(graph: Graph) -> bool:
    """Whether R1 can be folded: every whole-row norm is read by linears only and reads what others read as well."""
    read_by_linears = {op.x for op in graph.ops if isinstance(op, Linear)}
    whole = [op for op in graph.ops if isinstance(op, RmsNorm) and graph.widths[op.x] == graph.spec.hidden_size]
    return all(op.num_groups > 1 or op.out in read_by_linears for op in whole)


class RotatedWeights:
    """A `WeightSource` of a rotated model: float32, turned when a tensor is read.

    Args:
        spec: of the model before; `rotated_spec` of it is what this source holds.
        base: its weights, which the caller owns.
        seed: of the signs.
    """

    def __init__(self, spec: ModelSpec, base: WeightSource, seed: int = 0) -> None:
        graph = build_graph(spec)
        self._spec, self._base = spec, base
        self._residual = block_hadamard(spec.hidden_size, seed) if turns_residual(graph) else None
        self._head = block_hadamard(spec.attention.head_dim, seed + 1)
        self._norms: dict[str, str] = {}  # weight of a linear: weight of the norm before it
        self._values: set[str] = set()
        self._outputs: set[str] = set()
        producers = {getattr(op, "out", ""): op for op in graph.ops}
        for op in graph.ops:
            if isinstance(op, Attention):
                value = producers[op.v]
                assert isinstance(value, Linear)
                self._values |= {value.weight, value.bias or value.weight}
                self._outputs |= {o.weight for o in graph.ops if isinstance(o, Linear) and o.x == op.out}
            elif isinstance(op, Linear) and isinstance(norm := producers.get(op.x), RmsNorm):
                self._norms["lm_head.weight" if op.out == graph.output else op.weight] = norm.weight
        self._folded_norms = set(self._norms.values()) if self._residual is not None else set()

    def names(self) -> Sequence[str]:
        """Those of the base, and the head where it is new."""
        names = list(self._base.names())
        return names if self._residual is None or "lm_head.weight" in names else [*names, "lm_head.weight"]

    def info(self, name: str) -> TensorInfo:
        """Shape of a tensor; all are float32."""
        shape = self._base.info(self._origin(name)).shape
        return TensorInfo(name, shape, TensorFormat.F32, num_bytes(TensorFormat.F32, shape))

    def raw(self, name: str) -> np.ndarray:
        """The bytes of `dequantize`."""
        return np.ascontiguousarray(self.dequantize(name)).view(np.uint8).reshape(-1)

    def dequantize(self, name: str) -> Floats:
        """The turned tensor."""
        values = self._base.dequantize(self._origin(name))
        if name in self._folded_norms:
            return np.ones_like(values)
        if self._residual is not None:
            values = self._turn_residual(name, values)
        if name in self._values:
            return self._turn_heads(values)
        if name in self._outputs:
            return np.ascontiguousarray(self._turn_heads(values.T).T)
        return values

    def release(self, name: str) -> None:
        """Let the pages of the base leave memory."""
        self._base.release(self._origin(name))

    def close(self) -> None:
        """Nothing: the base is the caller's."""

    def _origin(self, name: str) -> str:
        missing = name == "lm_head.weight" and self._spec.tied_embeddings
        return "embed.weight" if missing else name

    def _turn_residual(self, name: str, values: Floats) -> Floats:
        assert self._residual is not None
        if name in self._norms:
            values = values * self._base.dequantize(self._norms[name])
        if values.ndim == 1:
            return values
        if name in self._norms or name == "embed.weight":
            return values @ self._residual
        return self._residual.T @ values  # o and down write the residual stream

    def _turn_heads(self, values: Floats) -> Floats:
        """Rows in heads of head_dim, each turned: (heads * head_dim, n) or the bias (heads * head_dim,)."""
        heads = values.reshape(-1, len(self._head), values.size // len(values))
        turned: Floats = np.einsum("de,hdn->hen", self._head, heads)
        return turned.reshape(values.shape)
