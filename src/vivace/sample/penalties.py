"""Penalties and biases on one row of logits, before any temperature."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.request import SamplingParams


def adjust(
    logits: NDArray[np.float32], tokens: NDArray[np.int32], num_prompt: int, params: SamplingParams
) -> NDArray[np.float32]:
    """A copy of the row with penalties and logit bias applied.

    Repetition (Keskar et al., 2019, CTRL, section 4.1): the logit of every token of prompt or answer is divided by the
    penalty if positive, else multiplied. Frequency and presence (OpenAI API) look at the answer alone: minus
    frequency x count, minus presence if the token occurred. Then the biases are added.

    Args:
        logits: float32 (vocab,); left as it is.
        tokens: all known tokens, int32 (n,).
        num_prompt: how many of them are the prompt.
        params: with the penalties and `logit_bias`.
    """
    row = logits.copy()
    if params.repetition_penalty != 1:
        seen = row[tokens]
        penalty = np.float32(params.repetition_penalty)
        row[tokens] = np.where(seen > 0, seen / penalty, seen * penalty)  # repeated tokens write the same value
    if (params.presence_penalty != 0 or params.frequency_penalty != 0) and len(tokens) > num_prompt:
        drawn, counts = np.unique(tokens[num_prompt:], return_counts=True)
        row[drawn] -= (counts * params.frequency_penalty + params.presence_penalty).astype(np.float32)
    for token_id, bias in params.logit_bias:
        row[token_id] += np.float32(bias)
    return row


def without(logits: NDArray[np.float32], banned: Sequence[int]) -> NDArray[np.float32]:
    """A copy of the row in which some tokens cannot be drawn; the row itself when nothing else would be left.

    Args:
        logits: float32 (vocab,); left as it is.
        banned: token ids.
    """
    row = logits.copy()
    row[list(banned)] = -np.inf
    return row if np.isfinite(row.max()) else logits
