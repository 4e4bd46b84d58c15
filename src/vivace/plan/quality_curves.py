"""What is left of a model at so many bits a weight: published and own measurements, and a curve through them.

Quality is recovery: the perplexity before over the perplexity after. The logarithm of the ratio falls about
exponentially with bits, quicker where bits are few, from a height that depends on the method and, without tuning, on
the size of the model; so its logarithm is fitted by least squares, and what the points stray from it is the uncertainty
that is told.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

METHODS = {
    "rounding": "block formats without calibration (k-quants, Q8_0, Q4_0)",
    "calibrated": "block formats with an importance matrix, AWQ or GPTQ",
    "tuned": "vector codes with fine-tuning (AQLM, PV-Tuning): a day or more of a GPU for each 7B",
}
_SPREAD = 1.28  # standard deviations either way: eight of ten


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published figure: `ratio` is perplexity after over before, `bits` a weight over the whole model."""

    model: str
    billions: float
    bits: float
    ratio: float
    method: str
    source: str


_SCORECHART = "llama.cpp, quantize README of 2023: Llama 2 70B scorechart"
_PR5060, _PR6936 = "llama.cpp PR 5060", "llama.cpp PR 6936"
_AQLM = "AQLM README; perplexity of FP16 from arXiv 2401.06118"
_OWN = (
    "docs/compression.md; bits of the blocks with ends as published files have them, for ends are much of small models"
)


def _rows(model: str, billions: float, method: str, source: str, points: dict[float, float]) -> list[Measurement]:
    return [Measurement(model, billions, bits, ratio, method, source) for bits, ratio in points.items()]


MEASUREMENTS: tuple[Measurement, ...] = (
    *_rows(
        "Llama 2 70B", 69, "rounding", _SCORECHART,
        {3.40: 1.0882, 3.47: 1.0789, 3.85: 1.0472, 4.19: 1.0380, 4.53: 1.0157, 4.80: 1.0120, 5.50: 1.0050,
         5.65: 1.0040, 6.56: 1.0016},
    ),
    *_rows(
        "Llama 2 70B", 69, "calibrated", _PR5060,
        {2.95: 4.0039 / 3.4313, 3.28: 3.7808 / 3.4313, 3.47: 3.6603 / 3.4313},
    ),
    *_rows("Llama 2 7B", 6.74, "rounding", _PR6936, {3.35: 1.107955, 4.84: 1.014242, 6.56: 1.002406, 8.5: 1.000689}),
    *_rows(
        "Llama 3 8B", 8.03, "rounding", _PR6936,
        {3.16: 1.564849, 4.89: 1.028160, 5.57: 1.016595, 5.70: 1.008895, 6.56: 1.003490, 8.5: 1.000425},
    ),
    *_rows("Llama 2 7B", 6.74, "tuned", _AQLM, {1.59: 7.85 / 5.12, 2.61: 5.90 / 5.12, 2.85: 5.68 / 5.12}),
    *_rows("Llama 2 13B", 13.0, "tuned", _AQLM, {2.52: 5.05 / 4.57}),
    *_rows("Llama 2 70B", 69, "tuned", _AQLM, {2.18: 3.78 / 3.12}),
    *_rows("SmolLM2 135M", 0.135, "rounding", _OWN, {4.85: 1.2110, 8.85: 1.0014}),
    *_rows("SmolLM2 135M", 0.135, "calibrated", _OWN, {4.85: 1.1273, 5.85: 1.0527, 6.85: 1.0114}),
    *_rows("Gemma 3 270M", 0.268, "calibrated", _OWN, {4.85: 1.1491}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prediction:
    """Recovery, 0 to 1, and the range that eight of ten measurements of this kind would lie in."""

    recovery: float
    low: float
    high: float


def predict_quality(billions: float, bits: float, method: str) -> Prediction:
    """What is left of a model.

    Args:
        billions: parameters in billions.
        bits: bits a weight over the whole model.
        method: a name of METHODS.
    """
    if bits >= 16:
        return Prediction(1.0, 1.0, 1.0)
    weights, spread = _fitted()
    height = float(_features(billions, bits, method) @ weights) + _gain(method)
    low, middle, high = (math.exp(-math.exp(height + sign * _SPREAD * spread)) for sign in (1, 0, -1))
    return Prediction(middle, low, high)


def bits_needed(billions: float, recovery: float, method: str) -> float:
    """Fewest bits a weight at which the curve reaches a recovery, from 1 to 16."""
    low, high = 1.0, 16.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if predict_quality(billions, middle, method).recovery >= recovery else (middle, high)
    return high


def _features(billions: float, bits: float, method: str) -> NDArray[np.float64]:
    tuned, size = float(method == "tuned"), math.log(billions)
    return np.array([1.0, bits, 1 / bits, (1 - tuned) * size, tuned])


@cache
def _fitted() -> tuple[NDArray[np.float64], float]:
    """Weights of the features, and the standard deviation of what is left, in units of log log ratio."""
    rows = np.stack([_features(point.billions, point.bits, point.method) for point in MEASUREMENTS])
    heights = np.array([_height(point) - _gain(point.method) for point in MEASUREMENTS])
    weights, *_ = np.linalg.lstsq(rows, heights, rcond=None)
    left = heights - rows @ weights
    return weights, float(np.sqrt((left**2).sum() / (len(left) - len(weights))))


@cache
def _gain(method: str) -> float:
    """What calibration brings, from models measured with and without it at the same bits: sizes do not confound it."""
    if method != "calibrated":
        return 0.0
    plain = {(p.model, p.bits): _height(p) for p in MEASUREMENTS if p.method == "rounding"}
    pairs = [
        _height(p) - plain[p.model, p.bits]
        for p in MEASUREMENTS
        if p.method == "calibrated" and (p.model, p.bits) in plain
    ]
    return float(np.mean(pairs))


def _height(point: Measurement) -> float:
    return math.log(math.log(point.ratio))
