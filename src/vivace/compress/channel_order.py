"""The channels between gate and up and down in the order of what they matter, so that bands of them can have more bits.

A channel j puts W_down[:, j] h_j into the residual stream; what its rows of gate and up lose by rounding goes with the
power of that, E[h_j^2] |W_down[:, j]|^2. In most layers a twentieth of the channels has a third of it, in some nearly
all (docs/compression.md). Rows of gate and up and columns of down in another order are the same model.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.compress.schemes import Floats
from vivace.graph.weights import weight_shapes
from vivace.numerics.formats import num_bytes
from vivace.types.model import ModelSpec
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource

Orders = Mapping[str, NDArray[np.intp]]
"""By the name of a matrix of gate or up: its rows, those that matter most first."""


def channel_orders(
    spec: ModelSpec, weights: WeightSource, importance: Mapping[str, Floats]
) -> dict[str, NDArray[np.intp]]:
    """The order of the channels of every layer whose inputs of down are known.

    Args:
        spec: what the model is.
        weights: its tensors.
        importance: E[x^2] of the inputs of matrices by their names (`importance.py`).
    """
    orders = {}
    for layer in range(spec.num_layers):
        down = f"layers.{layer}.mlp.down.weight"
        if down not in importance:
            continue
        power = importance[down] * np.square(weights.dequantize(down)).sum(axis=0)
        order = np.argsort(-power, kind="stable")
        orders[f"layers.{layer}.mlp.gate.weight"] = orders[f"layers.{layer}.mlp.up.weight"] = order
    return orders


class OrderedWeights:
    """A `WeightSource` of a model with its channels in an order of their own; what is moved is float32.

    Args:
        spec: what the model is.
        base: its weights, which the caller owns.
        orders: as `channel_orders` gives them.
    """

    def __init__(self, spec: ModelSpec, base: WeightSource, orders: Orders) -> None:
        self._base, self._orders = base, orders
        self._columns = {name.replace("mlp.gate", "mlp.down"): order for name, order in orders.items()}
        self._shapes = weight_shapes(spec)

    def names(self) -> Sequence[str]:
        """Those of the base."""
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        """Shape and format of one tensor; raises ModelFileError when it is missing."""
        if name not in self._orders and name not in self._columns:
            return self._base.info(name)
        shape = self._shapes[name]
        return TensorInfo(name, shape, TensorFormat.F32, num_bytes(TensorFormat.F32, shape))

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, 1-D."""
        if name not in self._orders and name not in self._columns:
            return self._base.raw(name)
        return self.dequantize(name).view(np.uint8).reshape(-1)

    def dequantize(self, name: str) -> Floats:
        """The tensor as float32 of `info(name).shape`."""
        values = self._base.dequantize(name)
        if name in self._orders:
            return values[self._orders[name]]
        if name in self._columns:
            return np.ascontiguousarray(values[:, self._columns[name]])
        return values

    def release(self, name: str) -> None:
        """Let the pages of the base leave memory."""
        self._base.release(name)

    def close(self) -> None:
        """Nothing: the base is the caller's."""
