"""Scales and norms of a rounded model as things to learn, and Adam over them.

Codes stay. A scale is its start times one plus what is learned, rounded to float16 as the file will hold it; the
gradient passes through the rounding (straight through). So every scale moves at the same pace relative to its size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vivace.compress.containers import CONTAINERS
from vivace.compress.layout import TensorPlan
from vivace.compress.schemes import Floats
from vivace.compress.stored import StoredTensor
from vivace.numerics.formats import FORMATS
from vivace.types.weights import TensorFormat, WeightSource

_SCALE_BYTES = 2  # of float16, first in every block of the formats that are tuned
_WARM_UP = 0.1  # of all steps


@dataclass(slots=True, eq=False)
class TunedMatrix:
    """Codes float-valued int8 (rows, groups, columns), their scales (rows, groups, 1), and the change of each."""

    plan: TensorPlan
    codes: torch.Tensor
    start: torch.Tensor
    change: torch.Tensor

    def scales(self) -> torch.Tensor:
        """As the file will hold them."""
        wanted = self.start * (1 + self.change)
        return wanted + (wanted.half().float() - wanted).detach()

    def value(self) -> torch.Tensor:
        """The matrix, (rows, columns)."""
        return (self.codes.float() * self.scales()).reshape(self.plan.shape)

    def stored(self, before: StoredTensor) -> StoredTensor:
        """The same codes under the scales by now."""
        row = FORMATS[before.format]
        halves = self.scales().detach().half().cpu().numpy().reshape(self.plan.shape[0], -1)
        data = before.data.reshape(-1, row.block_bytes).copy()
        repeats = len(data) // halves.size
        data[:, :_SCALE_BYTES] = np.repeat(halves, repeats, axis=1).astype("<f2").reshape(-1, 1).view(np.uint8)
        return StoredTensor(before.shape, before.format, data.reshape(-1))


@dataclass(slots=True, eq=False)
class TunedVector:
    """A norm's weight and the change of each entry."""

    plan: TensorPlan
    start: torch.Tensor
    change: torch.Tensor

    def value(self) -> torch.Tensor:
        """The vector."""
        return self.start * (1 + self.change)

    def stored(self, before: StoredTensor) -> StoredTensor:
        """The vector by now, float32."""
        values = self.value().detach().cpu().numpy().astype("<f4")
        return StoredTensor(before.shape, TensorFormat.F32, values.view(np.uint8))


Tuned = TunedMatrix | TunedVector


def is_tuned(plan: TensorPlan, *, norms: bool) -> bool:
    """Whether a tensor has something to tune: scales alone, first in each block; or a norm."""
    if len(plan.shape) == 1:
        return norms and plan.name.endswith("norm.weight") and plan.format is TensorFormat.F32
    if not plan.name.startswith("layers.") or plan.bands or plan.scheme is None or plan.format not in CONTAINERS:
        return False
    return plan.scheme.is_symmetric and plan.scheme.group_rows == 1


def make_tuned(plan: TensorPlan, weights: WeightSource, device: str) -> Tuned:
    """A tensor that `is_tuned`, as it is stored."""
    values = weights.dequantize(plan.name)
    if len(plan.shape) == 1:
        start = torch.as_tensor(values).to(device)
        return TunedVector(plan, start, torch.zeros_like(start, requires_grad=True))
    assert plan.scheme is not None and plan.format is not None
    scales = _stored_scales(plan, weights)
    grouped = values.reshape(plan.shape[0], scales.shape[1], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scales[:, :, None] == 0, 0, np.rint(grouped / scales[:, :, None])).astype(np.int8)
    start = torch.as_tensor(scales).to(device)[:, :, None]
    return TunedMatrix(plan, torch.as_tensor(codes).to(device), start, torch.zeros_like(start, requires_grad=True))


def _stored_scales(plan: TensorPlan, weights: WeightSource) -> Floats:
    """One a group, float32 (rows, groups): the float16 at the head of each group's first block."""
    assert plan.scheme is not None and plan.format is not None
    row = FORMATS[plan.format]
    blocks = np.ascontiguousarray(weights.raw(plan.name).reshape(-1, row.block_bytes)[:, :_SCALE_BYTES])
    scales = blocks.view("<f2").reshape(plan.shape[0], -1).astype(np.float32)
    groups = plan.shape[1] // (plan.scheme.group_size or plan.shape[1])
    if plan.scheme.granularity == "tensor":
        groups = 1
    return np.ascontiguousarray(scales[:, :: scales.shape[1] // groups])


class Adam:
    """Adam (Kingma and Ba, 2015) with a short warm-up and a cosine to 0 over `num_steps`; its state is plain tensors.

    Args:
        parameters: with gradients when `step` is called.
        rate: the highest.
        num_steps: in all.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], rate: float, num_steps: int) -> None:
        self._parameters = list(parameters)
        self._optimiser = torch.optim.Adam(self._parameters, lr=rate, betas=(0.9, 0.95))
        self._rate, self._num_steps = rate, num_steps
        self.done = 0

    def step(self) -> None:
        """Move against the gradients and forget them."""
        warm = max(_WARM_UP * self._num_steps, 1)
        falling = 0.5 * (1 + math.cos(math.pi * self.done / self._num_steps))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * min((self.done + 1) / warm, 1.0) * falling
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.done += 1

    def state(self) -> dict[str, Any]:
        """What goes on where this left off."""
        return {"done": self.done, "optimiser": self._optimiser.state_dict()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._optimiser.load_state_dict(state["optimiser"])
        self.done = int(state["done"])
