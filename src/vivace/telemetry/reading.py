"""How an answer felt to its reader: quality of experience and stalls, from the times its tokens came.

A reader expects the first token after `ttft_s` and then `rate` tokens a second, and reads no faster than that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


def reading_times(token_times_s: Sequence[float], rate: float) -> Seconds:
    """When each token is read: as soon as it is there and the one before has been read; float64 (tokens,).

    Args:
        token_times_s: when each token came, rising.
        rate: tokens a second.
    """
    paces = np.arange(len(token_times_s)) / rate
    latest: Seconds = np.maximum.accumulate(np.asarray(token_times_s, np.float64) - paces)
    return latest + paces


def quality_of_experience(token_times_s: Sequence[float], arrived_s: float, rate: float, ttft_s: float) -> float:
    """1 when the reader never waited more than expected, down to 0.

    The area under the curve of tokens read over time, against that of the expected curve, both up to the time the last
    token is read or expected, whichever is later (Andes; Liu et al., 2024, section 3.2).

    Args:
        token_times_s: when each token came, rising, on the clock of arrived_s; empty: 0.
        arrived_s: when the request came.
        rate: tokens a second that the reader takes in.
        ttft_s: when the first token was expected, after the arrival.
    """
    if not len(token_times_s):
        return 0.0
    read = reading_times(token_times_s, rate)
    expected = arrived_s + ttft_s + np.arange(len(read)) / rate
    end_s = max(read[-1], expected[-1]) + 1 / rate
    return float((end_s - np.maximum(read, expected)).sum() / (end_s - expected).sum())


def stalled_s(token_times_s: Sequence[float], rate: float) -> float:
    """Seconds after the first token in which the reader had nothing left to read and the answer went on."""
    if not len(token_times_s):
        return 0.0
    read = reading_times(token_times_s, rate)
    return max(0.0, float(read[-1] - read[0]) - (len(read) - 1) / rate)
