"""The sampler written down slowly: the distribution a token is drawn from, in float64, from the definitions."""

import numpy as np
from numpy.typing import NDArray

from vivace.types.request import SamplingParams


def adjusted(logits: NDArray[np.float32], tokens: list[int], num_prompt: int, params: SamplingParams) -> list[float]:
    values = [float(value) for value in logits]
    for token in set(tokens):
        penalty = params.repetition_penalty
        values[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
    answer = tokens[num_prompt:]
    for token in set(answer):
        values[token] -= params.frequency_penalty * answer.count(token) + params.presence_penalty
    for token, bias in params.logit_bias:
        values[token] += bias
    return values


def distribution(values: list[float], params: SamplingParams) -> NDArray[np.float64]:
    """Probability of every token after temperature, top-k, top-p and min-p."""
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    weights = {token: np.exp((values[token] - values[order[0]]) / params.temperature) for token in order}
    kept = order[: params.top_k] if params.top_k else order
    total = sum(weights[token] for token in kept)
    nucleus, mass = [], 0.0
    for token in kept:
        nucleus.append(token)
        mass += weights[token]
        if mass >= params.top_p * total:
            break
    kept = [token for token in nucleus if weights[token] >= params.min_p * weights[order[0]]]
    result = np.zeros(len(values))
    for token in kept:
        result[token] = weights[token]
    return result / result.sum()
