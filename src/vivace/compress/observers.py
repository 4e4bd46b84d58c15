"""Observers: from the activations that a tensor was seen with to the range that its codes should span.

One `Observation` gathers what all rules need in a single pass; a rule is a row of OBSERVERS. Ranges are for static
scales of a whole tensor. Chapter 18.2.2 and 18.2.4: MinMax, percentile (99.9 %), least squared error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vivace.compress.schemes import Floats
from vivace.types.errors import ConfigError

PERCENTILE = 99.9
_BINS = 4096  # of the magnitudes seen; a power of two, so that doubling the range joins bins in pairs
_MOMENTUM = 0.9  # of the moving average, a batch at a time
_CLIPS = np.linspace(0.2, 1.0, 81)
_LEAST_KL_BINS = 256
Counts = NDArray[np.float64]


@dataclass(slots=True)
class Observation:
    """What one tensor was seen with.

    Attributes:
        low, high: smallest and largest value.
        moving_low, moving_high: exponential averages of each batch's.
        counts: float64 (4096,), how many values have a magnitude in each of the equal bins of [0, limit).
        weighted: the same with each value counting as its channel's E[x^2].
    """

    low: float = 0.0
    high: float = 0.0
    moving_low: float = 0.0
    moving_high: float = 0.0
    limit: float = 0.0
    batches: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(_BINS))
    weighted: Counts = field(default_factory=lambda: np.zeros(_BINS))

    def add(self, rows: Floats) -> None:
        """Count one batch, float32 (tokens, width); all finite."""
        low, high = float(rows.min()), float(rows.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        keep = _MOMENTUM if self.batches else 0.0
        self.moving_low = keep * self.moving_low + (1 - keep) * min(low, 0.0)
        self.moving_high = keep * self.moving_high + (1 - keep) * max(high, 0.0)
        self.batches += 1
        magnitudes = np.abs(rows)
        self._reach(float(magnitudes.max()))
        bins = np.minimum((magnitudes * (_BINS / self.limit)).astype(np.int64), _BINS - 1)
        importance = np.broadcast_to((rows.astype(np.float64) ** 2).mean(axis=0), rows.shape)
        self.counts += np.bincount(bins.reshape(-1), minlength=_BINS)
        self.weighted += np.bincount(bins.reshape(-1), importance.reshape(-1), minlength=_BINS)

    def _reach(self, largest: float) -> None:
        self.limit = self.limit or max(largest, 1e-12) * 1.0001
        while largest >= self.limit:
            self.limit *= 2
            for counts in (self.counts, self.weighted):
                counts[: _BINS // 2] = counts.reshape(-1, 2).sum(axis=1)
                counts[_BINS // 2 :] = 0

    @property
    def is_one_sided(self) -> bool:
        """Whether no negative value was seen."""
        return self.low >= 0

    def clipped(self, largest: float) -> tuple[float, float]:
        """The range seen, cut at a magnitude."""
        return max(self.low, -largest), min(self.high, largest)


Rule = Callable[[Observation, int], tuple[float, float]]
"""(observation, bits of a code) -> (low, high), low <= 0 <= high."""


def find_range(observation: Observation, rule: str, bits: int) -> tuple[float, float]:
    """The range by a row of OBSERVERS; (0, 0) of a tensor that was all zeros.

    Raises:
        ConfigError: no such rule, or nothing was observed.
    """
    if rule not in OBSERVERS:
        raise ConfigError(f"There is no observer {rule!r}.", f"Choose one of {', '.join(OBSERVERS)}.")
    if observation.batches == 0:
        raise ConfigError("An observer saw no activations.", "Give calibration text.")
    return OBSERVERS[rule](observation, bits)


def _min_max(seen: Observation, _bits: int) -> tuple[float, float]:
    return seen.low, seen.high


def _moving_average(seen: Observation, _bits: int) -> tuple[float, float]:
    return seen.moving_low, seen.moving_high


def _percentile(seen: Observation, _bits: int) -> tuple[float, float]:
    """The magnitude that 99.9 % of the values stay under."""
    cumulative = np.cumsum(seen.counts)
    at = int(np.searchsorted(cumulative, PERCENTILE / 100 * cumulative[-1]))
    return seen.clipped((at + 1) * seen.limit / _BINS)


def _least_squares(seen: Observation, bits: int) -> tuple[float, float]:
    return seen.clipped(_least_error(seen.counts, seen, bits))


def _importance(seen: Observation, bits: int) -> tuple[float, float]:
    """As least squares, with errors in channels of large inputs counting more."""
    return seen.clipped(_least_error(seen.weighted, seen, bits))


def _least_error(counts: Counts, seen: Observation, bits: int) -> float:
    """The clip whose rounding and clipping errors together are least, over the middles of the bins."""
    middles = (np.arange(_BINS) + 0.5) * seen.limit / _BINS
    steps = (1 << bits) - 1 if seen.is_one_sided else (1 << (bits - 1)) - 1
    largest, errors = max(seen.high, -seen.low), []
    for clip in _CLIPS:
        scale = max(clip * largest / steps, 1e-30)
        kept = np.clip(np.rint(middles / scale), 0, steps) * scale
        # Inside a bin values differ from its middle; where the grid is finer than a bin its own step is the error.
        errors.append(float((counts * np.maximum((kept - middles) ** 2, scale * scale / 12)).sum()))
    return float(_CLIPS[int(np.argmin(errors))]) * largest


def _entropy(seen: Observation, bits: int) -> tuple[float, float]:
    """The clip whose quantised distribution is nearest in KL divergence (Migacz, "8-bit inference", 2017)."""
    levels = (1 << bits) - 1 if seen.is_one_sided else 1 << (bits - 1)
    best, least = _BINS, np.inf
    for kept in range(min(max(levels, _LEAST_KL_BINS), _BINS), _BINS + 1, 32):
        clipped = seen.counts[:kept].copy()
        clipped[-1] += seen.counts[kept:].sum()
        divergence = _divergence(clipped, seen.counts[:kept], levels)
        if divergence < least:
            best, least = kept, divergence
    return seen.clipped(best * seen.limit / _BINS)


def _divergence(clipped: Counts, inside: Counts, levels: int) -> float:
    """KL of the clipped counts from the counts inside, merged into `levels` and spread again over what was not 0."""
    groups = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    totals = np.bincount(groups, inside, minlength=levels)
    members = np.bincount(groups, filled, minlength=levels)
    spread = np.where(filled, totals[groups] / np.maximum(members[groups], 1), 0.0)
    p, q = clipped / max(clipped.sum(), 1e-30), spread / max(spread.sum(), 1e-30)
    shared = p > 0
    return float((p[shared] * np.log(p[shared] / np.maximum(q[shared], 1e-12))).sum())


OBSERVERS: dict[str, Rule] = {
    "minmax": _min_max,
    "moving-average": _moving_average,
    "percentile": _percentile,
    "mse": _least_squares,
    "kl": _entropy,
    "importance": _importance,
}
