"""Drawing tokens outside Python, as plain arrays: what an executor needs that draws from its own logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DrawNumbers:
    """How the tokens of one answer are drawn, in the order that `native/bindings/sampling.cpp` reads.

    Args:
        numbers: float64 (12,): temperature, top_p, min_p, repetition, presence and frequency penalty, top_k, number of
            prompt tokens, choice, upper and lower half of the seed's 64 bits, and 1 for greedy.
        bias_ids: int32 (b,).
        bias_values: float32 (b,), added to the logits of those tokens.
    """

    numbers: NDArray[np.float64]
    bias_ids: NDArray[np.int32]
    bias_values: NDArray[np.float32]


@runtime_checkable
class Drawer(Protocol):
    """An executor that draws tokens as `sample.sampler` does, only sooner."""

    def draw(
        self, logits: NDArray[np.float32], rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """A token for each row.

        Args:
            logits: float32 (L, vocab_size), what `forward` returned or an array like it.
            rows: L settings.
            histories: all known tokens of each row, int32 (n,); the new one gets position n.

        Returns:
            L tokens; -1 for a row that holds a NaN, +inf, or nothing above -inf.
        """
        ...
