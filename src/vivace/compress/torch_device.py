"""The torch device of compression: the same arithmetic as numpy's, on tensors in the memory of a CPU or a GPU.

Matrix products are in full float32 (no TF32), so that results agree with numpy's to rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vivace.compress.arrays import Array
from vivace.compress.torch_walk import TorchStep, run_ops
from vivace.execute.reference import Step
from vivace.graph.ops import Op
from vivace.types.errors import ConfigError

_MOST_HELD = 16  # weights kept on the device: those of a layer


class TorchDevice:
    """A `Device` (`device.py`) on torch.

    Args:
        name: "cpu" or "cuda", as torch names it.

    Raises:
        ConfigError: the machine has no such device.
    """

    def __init__(self, name: str) -> None:
        if name == "cuda" and not torch.cuda.is_available():
            raise ConfigError("This torch finds no CUDA device.", "Use --device cpu, or install a CUDA build of torch.")
        torch.backends.cuda.matmul.allow_tf32 = False
        self.name = f"torch-{name}"
        self._device = name
        self._held: dict[str, tuple[Array, torch.Tensor]] = {}

    def put(self, array: Array) -> Array:
        """A tensor of the array's values on the device."""
        return torch.as_tensor(array).to(self._device)

    def run(
        self,
        ops: Sequence[Op],
        step: Step,
        buffers: Mapping[str, Array],
        observe: Callable[[Op, Mapping[str, Array]], None] | None = None,
    ) -> Mapping[str, Array]:
        """Run ops over copies of the buffers; all buffers afterwards."""
        mine = TorchStep(step, lambda name: self._weight(name, step), self._device, dict(buffers))
        watch: Any = None if observe is None else lambda op, at: observe(op, at.buffers)
        with torch.no_grad():
            run_ops(ops, mine, watch)
        return mine.buffers

    def settle(self) -> None:
        """Wait until everything that was asked for is computed."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _weight(self, name: str, step: Step) -> torch.Tensor:
        """A weight on the device, put there again when it has changed."""
        array = step.weight(name)
        held = self._held.get(name)
        if held is None or held[0] is not array:
            while len(self._held) >= _MOST_HELD:
                del self._held[next(iter(self._held))]
            held = (array, self.put(array))
            self._held[name] = held
        return held[1]
