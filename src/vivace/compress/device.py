"""Where the heavy arithmetic of compression runs: a row of DEVICES each, numpy being the one that is always there.

Linear algebra and scale searches are written once over either kind of array (`arrays.py`); a device says where arrays
live and runs the op list on them. Torch is imported only when a row that needs it is chosen.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from vivace.compress.arrays import Array
from vivace.execute.reference import Step, run_ops
from vivace.graph.ops import Op
from vivace.types.errors import ConfigError

AUTO = "auto"


class Device(Protocol):
    """What the walk and the methods ask of a device."""

    name: str

    def put(self, array: Array) -> Array:
        """A numpy array as this device's."""

    def run(
        self,
        ops: Sequence[Op],
        step: Step,
        buffers: Mapping[str, Array],
        observe: Callable[[Op, Mapping[str, Array]], None] | None = None,
    ) -> Mapping[str, Array]:
        """Run ops over copies of the buffers; all buffers afterwards. `observe` sees each op before it runs."""

    def settle(self) -> None:
        """Wait until everything that was asked for is computed."""


class NumpyDevice:
    """numpy and its BLAS."""

    name = "numpy"

    def put(self, array: Array) -> Array:
        """The array itself."""
        return array

    def run(
        self,
        ops: Sequence[Op],
        step: Step,
        buffers: Mapping[str, Array],
        observe: Callable[[Op, Mapping[str, Array]], None] | None = None,
    ) -> Mapping[str, Array]:
        """The reference executor's ops."""
        step.buffers = dict(buffers)
        run_ops(ops, step, None if observe is None else lambda op, at: observe(op, at.buffers))
        return step.buffers

    def settle(self) -> None:
        """Nothing: numpy has computed it."""


def _torch(name: str) -> Device:
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"--device {name} needs torch.", "pip install 'vivace[torch]', or use --device cpu.")
    from vivace.compress.torch_device import TorchDevice

    return TorchDevice("cuda" if name == "cuda" else "cpu")


DEVICES: dict[str, Callable[[], Device]] = {
    "cpu": NumpyDevice,
    "cuda": lambda: _torch("cuda"),
    "torch": lambda: _torch("torch"),
}


def open_device(name: str) -> Device:
    """A row of DEVICES; "auto" is CUDA where torch and a GPU are, else numpy.

    Raises:
        ConfigError: no such row, or the machine lacks what it needs.
    """
    if name == AUTO:
        try:
            return DEVICES["cuda"]()
        except ConfigError:
            return NumpyDevice()
    if name not in DEVICES:
        raise ConfigError(f"There is no device {name!r}.", f"Choose one of {', '.join(DEVICES)}, {AUTO}.")
    return DEVICES[name]()
