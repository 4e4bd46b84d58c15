"""The distribution that the sampler draws from, written out: needed where drafts come with a distribution too."""

import numpy as np
from numpy.typing import NDArray

from vivace.sample.filters import top_ids
from vivace.sample.penalties import adjust
from vivace.sample.settings import DrawSettings


def target_distribution(
    logits: NDArray[np.float32], tokens: NDArray[np.int32], settings: DrawSettings
) -> NDArray[np.float64]:
    """Probabilities of the next token after penalties, biases, temperature, top-k, top-p and min-p, in this order.

    Args:
        logits: float32 (vocab,), as the model gave them.
        tokens: all known tokens, int32 (n,).
        settings: of the sequence; a greedy one gives a point mass.

    Returns:
        float64 (vocab,), sums to 1.
    """
    params = settings.params
    row = adjust(logits, tokens, settings.num_prompt, params) if settings.is_adjusted else logits
    probabilities = np.zeros(len(row))
    if settings.is_greedy:
        probabilities[row.argmax()] = 1
        return probabilities
    ids = top_ids(row, params.top_k if 0 < params.top_k < len(row) else len(row))
    weights = np.exp((row[ids].astype(np.float64) - float(row.max())) / params.temperature)
    if params.top_p < 1:
        kept = int(np.searchsorted(np.cumsum(weights), params.top_p * weights.sum())) + 1
        ids, weights = ids[:kept], weights[:kept]
    if params.min_p > 0:
        is_likely = weights >= params.min_p
        ids, weights = ids[is_likely], weights[is_likely]
    probabilities[ids] = weights / weights.sum()
    return probabilities
