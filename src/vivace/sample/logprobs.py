"""Log-probabilities of the raw distribution: what the model thinks, before penalties, temperature and filters."""

import math

import numpy as np
from numpy.typing import NDArray

from vivace.sample.filters import top_ids
from vivace.types.events import TokenLogprob


def token_logprob(row: NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprob:
    """Natural-log probability of `token_id` and of the `num_top` likeliest tokens.

    Args:
        row: float32 (vocab,) logits as the model gave them; the largest is finite.
        token_id: the drawn token.
        num_top: alternatives to report, likeliest first; the drawn token is among them if it is that likely.
    """
    largest = float(row.max())
    log_total = largest + math.log(float(np.exp(row - np.float32(largest)).sum(dtype=np.float64)))
    top = top_ids(row, num_top).tolist() if num_top else []
    return TokenLogprob(
        token_id=token_id,
        logprob=float(row[token_id]) - log_total,
        top=tuple((token, float(row[token]) - log_total) for token in top),
    )
