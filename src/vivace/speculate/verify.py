"""Which drafts stand. Two methods, both lossless: the answer has the distribution it has without drafts.

`draw_and_compare` draws every position exactly as plain decoding does, with that position's own random number, and
keeps a draft while it equals the drawn token. The text is then the same token for token, seeded or greedy, which is
more than the same distribution. For a proposer that names one token (its proposal distribution is a point mass at x)
nothing is lost by it: the draft stands with probability p(x), and rejection sampling gives min(1, p(x) / 1).

`reject_sample` is the method of the papers for proposers with a distribution q of their own: a draft x stands with
probability min(1, p(x) / q(x)), more often than under comparison, but the text is then equal in distribution only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.types.errors import ConfigError
from vivace.types.step import Draw


def draw_and_compare(
    sampler: Sampler,
    logits: NDArray[np.float32],
    settings: DrawSettings,
    tokens: NDArray[np.int32],
    drafts: Sequence[int],
) -> list[Draw]:
    """Draw the tokens that follow `tokens`, as far as the drafts are right.

    Args:
        sampler: of the engine, so that temperature, filters, penalties, biases and log-probabilities are its own.
        logits: float32 (k + 1, vocab): row j follows `tokens` and the first j drafts.
        settings: of the sequence.
        tokens: all known tokens, int32 (n,).
        drafts: k guesses.

    Returns:
        1 to k + 1 draws. All but the last equal their drafts; the last is the first that differs, or the one after all
        drafts. A draw that failed is the last. Behind a draft that a grammar refuses rows fail, and are not reached.
    """
    history = np.concatenate((tokens, np.array(drafts, dtype=np.int32))) if drafts else tokens
    num_known = len(tokens)
    rows = [DrawRow(settings, history[: num_known + index]) for index in range(len(drafts) + 1)]
    if settings.num_logprobs is None:  # one call for all: a draw too many costs less than a call
        draws = sampler.sample(logits, rows)
        stood = next((index for index, draft in enumerate(drafts) if draws[index].token_id != draft), len(drafts))
        return list(draws[: stood + 1])
    told: list[Draw] = []
    for index, row in enumerate(rows):
        told += sampler.sample(logits[index : index + 1], [row])
        if index == len(drafts) or told[-1].token_id != drafts[index]:
            break
    return told


def count_confirmed(logits: NDArray[np.float32], drafts: Sequence[int]) -> int:
    """How many drafts greedy decoding confirms: the first ones that are each the likeliest token of their row.

    Args:
        logits: float32 (k, vocab) or more rows; equal logits count for the lower id.
        drafts: k guesses.
    """
    likeliest = logits[: len(drafts)].argmax(axis=1)
    wrong = np.flatnonzero(likeliest != np.asarray(drafts))
    return int(wrong[0]) if len(wrong) else len(drafts)


@dataclass(frozen=True, slots=True)
class Verified:
    """What rejection sampling kept: the first `num_accepted` drafts, then `token_id`."""

    num_accepted: int
    token_id: int


def reject_sample(
    target: NDArray[np.float64],
    proposal: NDArray[np.float64],
    drafts: Sequence[int],
    numbers: Sequence[float],
) -> Verified:
    """Lossless verification of drafts that were drawn from distributions.

    Args:
        target: float64 (k + 1, vocab): the sampler's own distribution after the first j drafts, see `distribution.py`.
        proposal: float64 (k, vocab): the distribution that draft j was drawn from.
        drafts: k tokens, draft j drawn from proposal j.
        numbers: k + 1 uniform numbers in [0, 1), independent of the drafts: one for each decision, one for the token.

    Raises:
        ConfigError: shapes that do not belong together, as with a draft model of another vocabulary.

    Leviathan et al. (2023), algorithm 1; Chen et al. (2023), algorithm 2.
    """
    if target.shape != (len(drafts) + 1, target.shape[1]) or proposal.shape != (len(drafts), target.shape[1]):
        raise ConfigError(
            f"{len(drafts)} drafts came with distributions of shape {proposal.shape} and {target.shape}.",
            "Draft and target must have the same vocabulary, the target one row more than there are drafts.",
        )
    for index, draft in enumerate(drafts):
        if numbers[index] * proposal[index, draft] >= target[index, draft]:
            rest = residual(target[index], proposal[index])
            return Verified(index, pick(rest, numbers[-1]))
    return Verified(len(drafts), pick(target[-1], numbers[-1]))


def residual(target: NDArray[np.float64], proposal: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the target has more than the proposal, made a distribution; the target where the two are equal."""
    rest = np.maximum(target - proposal, 0)
    total = rest.sum()
    return rest / total if total > 0 else target


def pick(probabilities: NDArray[np.float64], number: float) -> int:
    """The token whose interval of the cumulative distribution holds `number`; one of probability 0 never is."""
    cumulative = np.cumsum(probabilities)
    chosen = int(np.searchsorted(cumulative, number * cumulative[-1], side="right"))
    return chosen if chosen < len(probabilities) else int(np.flatnonzero(probabilities)[-1])
