"""Activation clipping, searched: how far the ranges of each linear's inputs are cut, for the least error it makes.

A few outliers spread the codes of a dynamic range; cutting it costs them and serves the many. Which side wins depends
on the linear: for every buffer that linears read, a share of its dynamic range is chosen on calibration windows, by the
squared error of all outputs of those linears. Chapter 18.2.4, activation clipping; the search is that of OmniQuant's
clipping (Shao et al., 2023) over a grid in place of gradients, and for inputs in place of weights.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vivace.compress.activation_schemes import ActivationScheme
from vivace.compress.activations import quantize_activations
from vivace.compress.schemes import Floats
from vivace.types.errors import ConfigError

RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""Shares of a dynamic range that are tried; the whole range wins a tie."""
_ROWS = 64  # of a window that errors are summed over, spread evenly


class ClipSearch:
    """Squared errors of what linears put out, by ratio, summed over linears and windows.

    Args:
        scheme: dynamic; its own clip is the widest range.
        window: tokens of a window of calibration text.

    Raises:
        ConfigError: the scheme is static, whose observers cut ranges themselves.
    """

    def __init__(self, scheme: ActivationScheme, window: int) -> None:
        if scheme.mode != "dynamic":
            raise ConfigError(
                "Clipping by search is for dynamic ranges.",
                "Static ones are cut by their observer: percentile, mse or kl.",
            )
        self._schemes = [replace(scheme, clip=max(scheme.clip * ratio, 0.1)) for ratio in RATIOS]
        self._stride = max(1, window // _ROWS)
        self._sums: dict[str, list[float]] = {}
        self._products: tuple[str, list[Floats]] = ("", [])

    def look(self, name: str, rows: Floats, readers: Sequence[Floats]) -> None:
        """Count the errors of one batch of a buffer, float32 (tokens, width); `readers` are its linears' weights."""
        if self._products[0] != name:
            self._products = (name, [_smaller(weight) for weight in readers])
        few = rows[:: self._stride]
        sums = self._sums.setdefault(name, [0.0] * len(RATIOS))
        for number, scheme in enumerate(self._schemes):
            error = quantize_activations(few, scheme) - few
            sums[number] += sum(_squared(error, product) for product in self._products[1])

    def best(self) -> dict[str, float]:
        """By buffer, the clip with the least error."""
        return {name: self._schemes[int(np.argmin(sums))].clip for name, sums in self._sums.items()}


def _smaller(weight: Floats) -> Floats:
    """What squared errors of outputs are taken with: W^T, or W^T W where that is smaller."""
    outputs, inputs = weight.shape
    return weight.T if outputs < inputs else weight.T @ weight


def _squared(error: Floats, product: Floats) -> float:
    through = error @ product
    is_gram = product.shape[0] == product.shape[1]
    return float(np.vdot(through, error if is_gram else through))
