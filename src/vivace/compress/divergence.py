"""How far executors are from one reference over the same windows, with the reference run once.

Holds the reference's log-probabilities in float32, `logit positions x vocabulary`; for many candidates of one model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.execute.score import Tokens, iterate_logits, log_softmax
from vivace.types.errors import ConfigError
from vivace.types.step import Executor

MOST_BYTES = 1 << 30  # of log-probabilities held
_ROWS = 32


class KeptReference:
    """The next-token distributions of a reference at the second half of each window.

    Args:
        reference: run once, here; may be closed afterwards.
        windows: what all candidates read.

    Raises:
        ConfigError: the windows and the vocabulary together are too large to hold.
    """

    def __init__(self, reference: Executor, windows: Sequence[Tokens]) -> None:
        positions = sum(len(window) - len(window) // 2 for window in windows)
        if positions * reference.vocab_size * 4 > MOST_BYTES:
            most = MOST_BYTES // (4 * reference.vocab_size)
            raise ConfigError(
                f"{positions} positions of a vocabulary of {reference.vocab_size} are too much to hold.",
                f"Use windows with at most {most} positions in their second halves.",
            )
        self._windows = list(windows)
        self._kept = [
            [log_softmax(logits).astype(np.float32) for _, logits in _steps(reference, window)] for window in windows
        ]

    @property
    def num_positions(self) -> int:
        """Positions compared."""
        return sum(len(rows) for kept in self._kept for rows in kept)

    def divergences(self, candidate: Executor) -> NDArray[np.float64]:
        """KL(reference || candidate) in nats, an entry a position."""
        found = []
        for window, kept in zip(self._windows, self._kept, strict=True):
            for expected, (_, logits) in zip(kept, _steps(candidate, window), strict=True):
                wide = expected.astype(np.float64)
                found.append((np.exp(wide) * (wide - log_softmax(logits))).sum(axis=-1))
        return np.concatenate(found)

    def mean_kl(self, candidate: Executor) -> float:
        """Mean KL divergence in nats, never below 0."""
        return max(float(self.divergences(candidate).mean()), 0.0)


def _steps(executor: Executor, window: Tokens) -> list[tuple[slice, NDArray[np.float32]]]:
    rows = min(_ROWS, executor.max_rows)
    steps = iterate_logits(executor, window, len(window) // 2, logit_rows=rows)
    return [(positions, logits.copy()) for positions, logits in steps]
