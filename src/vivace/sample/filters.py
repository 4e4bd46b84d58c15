"""From one row of logits and one uniform number to a token: temperature, top-k, top-p, min-p, then the draw.

Filters apply in this order. Ties are broken toward the lower token id, so a draw depends on nothing but the numbers.
"""

import numpy as np
from numpy.typing import NDArray

from vivace.types.request import SamplingParams

Ids = NDArray[np.intp]
SEGMENT = 1024  # tokens summed at once when a draw runs over the whole vocabulary
NUCLEUS_TRIES = (128, 2048)  # sizes to look for the nucleus in before sorting the whole vocabulary


def top_ids(row: NDArray[np.float32], count: int) -> Ids:
    """The ids of the `count` largest entries, largest first, equal entries by lower id."""
    vocab_size = len(row)
    if count >= vocab_size:
        return np.argsort(-row, kind="stable")
    threshold = np.partition(row, vocab_size - count)[vocab_size - count]
    ids = np.flatnonzero(row >= threshold)
    return ids[np.argsort(-row[ids], kind="stable")][:count]


def draw(row: NDArray[np.float32], params: SamplingParams, number: float) -> int:
    """Draw a token.

    Args:
        row: float32 (vocab,) logits after penalties; the largest is finite.
        params: temperature above 0, top_k, top_p, min_p.
        number: uniform in [0, 1).

    Returns:
        The token whose interval of the cumulative distribution holds `number`.

    Chapter 18.1.2; top-p as in Holtzman et al. (2020), min-p as in Nguyen et al. (2024).
    """
    largest = row.max()
    if 0 < params.top_k < len(row):
        ids = top_ids(row, params.top_k)
        weights = np.exp((row[ids].astype(np.float64) - largest) / params.temperature)
        return _draw_sorted(ids, weights, float(weights.sum()), params, number)
    weights = np.exp((row - largest) * np.float32(1 / params.temperature))
    if params.top_p < 1:
        total = float(weights.sum())
        likeliest = _likeliest(row, weights, params.top_p * total)
        if likeliest is not None:
            return _draw_sorted(likeliest, weights[likeliest].astype(np.float64), total, params, number)
        _keep_nucleus(weights, params.top_p * total)
    if params.min_p > 0:
        weights[weights < params.min_p] = 0
    return _locate(weights, number)


def _likeliest(row: NDArray[np.float32], weights: NDArray[np.float32], mass: float) -> Ids | None:
    """A few likeliest tokens, in order, whose weights reach `mass`; None when it takes too many."""
    for count in NUCLEUS_TRIES:
        ids = top_ids(row, min(count, len(row)))
        if weights[ids].sum(dtype=np.float64) >= mass:
            return ids
    return None


def _keep_nucleus(weights: NDArray[np.float32], mass: float) -> None:
    """Set to 0 all but the largest weights that reach `mass` together: sorts values only, which is the fast sort."""
    falling = np.sort(weights)[::-1]
    last = _locate(falling, mass / float(weights.sum()))
    threshold = falling[last]
    num_equal_kept = last + 1 - int(np.count_nonzero(weights > threshold))
    dropped_equals = np.flatnonzero(weights == threshold)[num_equal_kept:]
    weights[weights < threshold] = 0
    weights[dropped_equals] = 0


def _draw_sorted(ids: Ids, weights: NDArray[np.float64], total: float, params: SamplingParams, number: float) -> int:
    """Draw from candidates in falling order after cutting them by top-p (of `total`) and min-p (of the largest)."""
    cumulative = np.cumsum(weights)
    count = len(ids)
    if params.top_p < 1:
        count = min(count, int(np.searchsorted(cumulative, params.top_p * total)) + 1)
    if params.min_p > 0:
        count = min(count, int(np.searchsorted(-weights, -params.min_p, side="right")))
    kept = cumulative[:count]
    chosen = int(np.searchsorted(kept, number * kept[-1], side="right"))
    if chosen == count:  # number x total was rounded up to the total
        chosen = int(np.searchsorted(kept, kept[-1]))
    return int(ids[chosen])


def _locate(weights: NDArray[np.float32], number: float) -> int:
    """The index whose interval of the cumulative sum holds `number` x the total: first the segment, then inside it.

    An index of weight 0 is never returned.
    """
    sums = np.add.reduceat(weights, np.arange(0, len(weights), SEGMENT))
    cumulative = np.cumsum(sums, dtype=np.float64)
    target = number * cumulative[-1]
    segment = int(np.searchsorted(cumulative, target, side="right"))
    if segment == len(sums):  # number x total was rounded up to the total
        segment = int(np.flatnonzero(sums)[-1])
    before = cumulative[segment - 1] if segment else 0.0
    inside = weights[segment * SEGMENT : (segment + 1) * SEGMENT]
    index = int(np.searchsorted(np.cumsum(inside, dtype=np.float64), target - before, side="right"))
    if index == len(inside):  # the segment's float32 sum was rounded up past the sum of its parts
        index = int(np.flatnonzero(inside)[-1])
    return segment * SEGMENT + index
