"""The op list in torch, for calibration: whole sequences from position 0 on, no pages, on any of torch's devices.

One function an op kind, in the table at the end, each the twin of `execute/reference.py`'s. Buffers are tensors.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from vivace.compress.arrays import Array
from vivace.execute.reference import Step
from vivace.graph.ops import Add, Attention, Embed, GatedActivation, Linear, Op, RmsNorm, Rope, SelectRows
from vivace.types.errors import ConfigError
from vivace.types.model import RopeSpec


@dataclass(slots=True)
class TorchStep:
    """What the ops of one step share: a numpy step's batch, weights as tensors, and the buffers written so far."""

    step: Step
    weight: Callable[[str], Array]
    device: str
    buffers: dict[str, Array] = field(default_factory=dict)

    def put(self, array: object) -> Array:
        """An array as a tensor on the device."""
        return torch.as_tensor(array).to(self.device)


def run_ops(ops: Iterable[Op], step: TorchStep, observe: Callable[[Op, TorchStep], None] | None = None) -> None:
    """Run ops in order, leaving what they write in `step.buffers`.

    Raises:
        ConfigError: an op kind that calibration does not meet (fused ones).
    """
    for op in ops:
        if observe is not None:
            observe(op, step)
        if type(op) not in _RUN:
            raise ConfigError(f"Torch does not run the op {type(op).__name__}.", "Use --device cpu.")
        _RUN[type(op)](op, step)


def _run_embed(op: Embed, step: TorchStep) -> None:
    ids = step.put(step.step.batch.token_ids).long()
    step.buffers[op.out] = step.weight(op.weight)[ids] * op.scale


def _run_rms_norm(op: RmsNorm, step: TorchStep) -> None:
    x = step.buffers[op.x]
    pieces = x.reshape(len(x), op.num_groups, -1)
    root = torch.sqrt((pieces * pieces).mean(dim=-1, keepdim=True) + op.eps)
    step.buffers[op.out] = (pieces / root * step.weight(op.weight)).reshape(x.shape)


def _run_linear(op: Linear, step: TorchStep) -> None:
    product = step.buffers[op.x] @ step.weight(op.weight).T
    step.buffers[op.out] = product if op.bias is None else product + step.weight(op.bias)


def _run_rope(op: Rope, step: TorchStep) -> None:
    x = step.buffers[op.x]
    cos, sin = (step.put(table)[:, None, :] for table in step.step.cos_sin(op.rope))
    rotated = x.reshape(len(x), op.num_heads, -1).clone()
    first, second = _pairs(rotated, op.rope)
    first_before, second_before = first.clone(), second.clone()
    first[...] = first_before * cos - second_before * sin
    second[...] = second_before * cos + first_before * sin
    step.buffers[op.out] = rotated.reshape(x.shape)


def _pairs(heads: Array, rope: RopeSpec) -> tuple[Array, Array]:
    if rope.interleaved:
        return heads[..., 0 : rope.dim : 2], heads[..., 1 : rope.dim : 2]
    return heads[..., : rope.dim // 2], heads[..., rope.dim // 2 : rope.dim]


def _run_attention(op: Attention, step: TorchStep) -> None:
    q, k, v = (step.buffers[name] for name in (op.q, op.k, op.v))
    starts = step.step.batch.sequence_starts.tolist()
    lengths = {last - first for first, last in pairwise(starts)}
    if len(lengths) == 1:
        step.buffers[op.out] = _attend(op, q, k, v, lengths.pop())
        return
    parts = (slice(first, last) for first, last in pairwise(starts))
    step.buffers[op.out] = torch.cat([_attend(op, q[part], k[part], v[part], part.stop - part.start) for part in parts])


def _attend(op: Attention, q: Array, k: Array, v: Array, rows: int) -> Array:
    """Causal attention of sequences of `rows` tokens each; query head h reads kv head h // (heads / kv heads)."""
    count, group = len(q) // rows, op.num_heads // op.num_kv_heads
    queries = q.reshape(count, rows, op.num_kv_heads, group, op.head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1)
    keys, values = (
        x.reshape(count, rows, op.num_kv_heads, 1, op.head_dim).permute(0, 2, 3, 1, 4).flatten(0, 1) for x in (k, v)
    )
    if op.window is None or op.window >= rows:  # torch's own causal kernel: no scores in memory
        spread = (x.expand(-1, group, -1, -1).contiguous() for x in (keys, values))
        mixed = torch.nn.functional.scaled_dot_product_attention(queries, *spread, is_causal=True, scale=op.scale)
    else:
        distance = torch.arange(rows, device=q.device)[:, None] - torch.arange(rows, device=q.device)
        scores = (queries @ keys.transpose(-1, -2)) * op.scale
        scores = scores.masked_fill((distance < 0) | (distance >= op.window), -torch.inf)
        mixed = torch.softmax(scores, dim=-1) @ values
    return mixed.unflatten(0, (count, op.num_kv_heads)).permute(0, 3, 1, 2, 4).reshape(count * rows, -1)


def _run_gated_activation(op: GatedActivation, step: TorchStep) -> None:
    step.buffers[op.out] = _ACTIVATIONS[op.activation](step.buffers[op.gate]) * step.buffers[op.up]


def _run_add(op: Add, step: TorchStep) -> None:
    step.buffers[op.out] = step.buffers[op.a] + step.buffers[op.b]


def _run_select_rows(op: SelectRows, step: TorchStep) -> None:
    step.buffers[op.out] = step.buffers[op.x][step.put(step.step.batch.logit_rows).long()]


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": torch.nn.functional.silu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
_RUN: dict[type[Op], Callable[..., None]] = {
    Embed: _run_embed,
    RmsNorm: _run_rms_norm,
    Linear: _run_linear,
    Rope: _run_rope,
    Attention: _run_attention,
    GatedActivation: _run_gated_activation,
    Add: _run_add,
    SelectRows: _run_select_rows,
}
