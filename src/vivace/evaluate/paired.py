"""Tests for two models that answered the same questions: exact McNemar, and a bootstrap over questions.

Answering the same questions makes differences far surer than two separate accuracies would.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
Z = 1.959964  # standard deviations either way that hold it


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two models on the same questions.

    Attributes:
        num_items: questions.
        accuracy: share that the model got right; `reference_accuracy` that the reference did.
        lost: right by the reference only; `won` by the model only.
        p_value: of McNemar's exact test that both are equally good, two-sided.
        recovery: accuracy / reference_accuracy; None when the reference got nothing right.
        recovery_low: of the interval that 95 of 100 resamplings of the questions lie in; `recovery_high`.
    """

    num_items: int
    accuracy: float
    reference_accuracy: float
    lost: int
    won: int
    p_value: float
    recovery: float | None
    recovery_low: float | None
    recovery_high: float | None


def compare_answers(right: Sequence[bool], reference_right: Sequence[bool], seed: int = 0) -> PairedTest:
    """Compare what two models got right; an entry a question, in the same order."""
    own, other = np.array(right, bool), np.array(reference_right, bool)
    lost, won = int((other & ~own).sum()), int((own & ~other).sum())
    recovery = float(own.mean() / other.mean()) if other.any() else None
    low, high = _recovery_interval(own, other, seed) if recovery is not None else (None, None)
    return PairedTest(
        len(own), float(own.mean()), float(other.mean()), lost, won, mcnemar(lost, won), recovery, low, high
    )


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value that the questions on which two models differ fall to either alike."""
    total = lost + won
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(min(lost, won) + 1))
    return min(2.0 * tail / 2.0**total, 1.0)


def _recovery_interval(own: np.ndarray, other: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(own), size=(RESAMPLES, len(own)))
    references = other[drawn].mean(axis=1)
    ratios = own[drawn].mean(axis=1)[references > 0] / references[references > 0]
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [edge, 1 - edge])
    return float(low), float(high)


def wilson_interval(successes: float, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927); (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    z, share = Z, successes / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(middle - half, 0.0), min(middle + half, 1.0)
