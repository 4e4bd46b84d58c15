"""The KL divergence of a model from a reference, and its gradient, with one segment of the op list in memory at a time.

Forward keeps what each segment reads; backward runs the segments once more from the last to the first, each with its
own tape (Chen et al., "Training deep nets with sublinear memory cost", 2016). Logits are compared a few rows at a time
and their gradient is written down: softmax of the model minus softmax of the reference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vivace.compress.arrays import Array
from vivace.compress.statistics import layer_segments
from vivace.compress.torch_walk import TorchStep, run_ops
from vivace.execute.reference import Step
from vivace.execute.reference_attention import KeyValuePages
from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear, Op
from vivace.types.errors import ConfigError
from vivace.types.step import ForwardBatch

_ROWS = 256  # of logits at once
GetTensor = Callable[[str], torch.Tensor]
Buffers = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the reference's head reads at each token, float32 (tokens, width), and its head, (vocabulary, width)."""

    rows: torch.Tensor
    head: torch.Tensor


class SegmentedModel:
    """An op list that is differentiated segment by segment.

    Args:
        graph: an op list without fused ops that ends in a linear without a bias.
        device: as torch names it.

    Raises:
        ConfigError: the op list ends in something else.
    """

    def __init__(self, graph: Graph, device: str) -> None:
        head = graph.ops[-1]
        if not isinstance(head, Linear) or head.bias is not None:
            raise ConfigError("Scales are tuned through a head without a bias only.", "Leave out 'tuning'.")
        segments = layer_segments(graph)
        self._head = head
        self._segments: list[Sequence[Op]] = [*segments[:-1], segments[-1][:-1]]
        self._reads = [_reads_from(self._segments[number:]) | {head.x} for number in range(len(self._segments))]
        self._pages = KeyValuePages.allocate(graph.spec, 0)
        self._device = device

    def divergence(
        self, batch: ForwardBatch, reference: Reference, weight: GetTensor, *, learn: bool, lap: Callable[[int], None]
    ) -> float:
        """The sum over tokens of KL(reference || model) in nats.

        Args:
            batch: whole windows.
            reference: of the same tokens.
            weight: a tensor by name; called again when a segment is run again.
            learn: add the gradient of the mean to what `weight` was made from.
            lap: told of each segment, by number, when it was run, and again when its gradient is done.
        """
        step = Step(batch, self._pages, _not_numpy)
        kept: list[Buffers] = []
        buffers: Buffers = {}
        for number, segment in enumerate(self._segments[:-1]):
            kept.append(buffers)
            with torch.no_grad():
                after = self._run(segment, step, buffers, weight)
            buffers = {name: after[name] for name in after if name in self._reads[number + 1]}
            lap(number)
        last = len(self._segments) - 1
        total, gradients = self._last(step, buffers, reference, weight, learn=learn)
        lap(last)
        if learn:
            for number in range(last - 1, 0, -1):  # what comes before the layers has nothing to learn
                gradients = self._back(number, step, kept[number], gradients, weight)
                lap(number)
        return total

    def _run(self, segment: Sequence[Op], step: Step, buffers: Mapping[str, Array], weight: GetTensor) -> Buffers:
        mine = TorchStep(step, weight, self._device, dict(buffers))
        with sdpa_kernel(SDPBackend.MATH):  # the others' gradients are summed in no fixed order on CUDA
            run_ops(segment, mine)
        return mine.buffers

    def _last(
        self, step: Step, buffers: Buffers, reference: Reference, weight: GetTensor, *, learn: bool
    ) -> tuple[float, Buffers]:
        leaves = {name: tensor.detach().requires_grad_(learn) for name, tensor in buffers.items()}
        with torch.set_grad_enabled(learn):
            rows = self._run(self._segments[-1], step, leaves, weight)[self._head.x]
        with torch.no_grad():
            total, gradient = compare_heads(rows.detach(), weight(self._head.weight), reference, learn=learn)
        if gradient is None:
            return total, {}
        torch.autograd.backward([rows], [gradient])
        return total, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    def _back(self, number: int, step: Step, kept: Buffers, gradients: Buffers, weight: GetTensor) -> Buffers:
        """Gradients of what a segment reads, from those of what it and earlier ones write."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in kept.items()}
        with torch.enable_grad():
            after = self._run(self._segments[number], step, leaves, weight)
        written = {name for op in self._segments[number] for name in buffers_written(op)} & gradients.keys()
        torch.autograd.backward([after[name] for name in written], [gradients[name] for name in written])
        passed = {name: gradient for name, gradient in gradients.items() if name not in written}
        for name, leaf in leaves.items():
            if leaf.grad is not None:
                passed[name] = passed[name] + leaf.grad if name in passed else leaf.grad
        return passed


def compare_heads(
    rows: torch.Tensor, head: torch.Tensor, reference: Reference, *, learn: bool
) -> tuple[float, torch.Tensor | None]:
    """The sum of KL divergences over rows, and the gradient of their mean by `rows`, (tokens, width).

    Args:
        rows: what the model's head reads.
        head: the model's, (vocabulary, width).
        reference: of the same tokens.
        learn: whether the gradient is wanted.
    """
    total, gradient = 0.0, torch.empty_like(rows) if learn else None
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        found = torch.log_softmax(rows[part] @ head.T, dim=-1)
        expected = torch.log_softmax(reference.rows[part] @ reference.head.T, dim=-1)
        shares = expected.exp()
        total += float((shares * (expected - found)).sum(dim=-1).double().sum())
        if gradient is not None:
            gradient[part] = (found.exp_().sub_(shares) @ head) / len(rows)
    return total, gradient


def _reads_from(segments: Sequence[Sequence[Op]]) -> set[str]:
    return {name for segment in segments for op in segment for name in buffers_read(op)}


def _not_numpy(name: str) -> Array:
    raise AssertionError(f"{name} is read as a tensor here")
