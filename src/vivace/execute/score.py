"""How well an executor predicts a text, and how near two executors are: numbers over windows of tokens.

Works through ForwardBatch alone, so on any Executor. Owns no model and reads no file; nothing here draws tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, ForwardBatch, ForwardPass

Tokens = NDArray[np.int32]
MAX_LOGIT_ROWS = 64  # rows of logits held at once: 64 rows of a vocabulary of 256 k are 64 MiB


@dataclass(frozen=True, slots=True)
class TextScore:
    """`num_tokens` scored tokens, their mean negative log-probability (nats) and the standard error of that mean."""

    num_tokens: int
    mean_nll: float
    standard_error: float

    @property
    def perplexity(self) -> float:
        """exp(mean negative log-probability)."""
        return math.exp(self.mean_nll)

    @property
    def perplexity_error(self) -> float:
        """One standard error of the perplexity, to first order."""
        return self.perplexity * self.standard_error


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a candidate's next-token distributions are to a reference's, over `num_positions` positions.

    `same_top`: how often both find the same token likeliest. `mean_kl`: mean KL(reference || candidate) in nats.
    `largest_kl` is the worst position; `mean_absolute_error` is of the log-probabilities.
    """

    num_positions: int
    same_top: float
    mean_kl: float
    largest_kl: float
    mean_absolute_error: float


def cut_windows(token_ids: Sequence[int], size: int, num_windows: int | None, bos_id: int | None) -> list[Tokens]:
    """Cut a text into windows that follow one another without overlap, as llama.cpp's perplexity tool does.

    Args:
        token_ids: the whole text, tokenised as the model wants it (with its BOS in front, if it takes one).
        size: tokens in a window.
        num_windows: how many from the start of the text; None for all whole ones.
        bos_id: written over the first token of each window; None for models that take no BOS.

    Raises:
        ConfigError: the text is shorter than the windows asked for.
    """
    available = len(token_ids) // size
    wanted = available if num_windows is None else num_windows
    if not 0 < wanted <= available:
        raise ConfigError(
            f"{wanted} windows of {size} tokens were asked for, but the text has {len(token_ids)} tokens.",
            f"Ask for 1 to {available} windows." if available else "Give a longer text.",
        )
    windows = [np.array(token_ids[i * size : (i + 1) * size], dtype=np.int32) for i in range(wanted)]
    if bos_id is not None:
        for window in windows:
            window[0] = bos_id
    return windows


def iterate_logits(
    executor: ForwardPass, tokens: Tokens, first: int, *, logit_rows: int = MAX_LOGIT_ROWS
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Run one sequence through KV blocks 0, 1, 2 ... and yield the logits of the positions from `first` on.

    Args:
        executor: its KV pool is written from block 0 on.
        tokens: int32 (n,).
        first: first position whose logits are wanted.
        logit_rows: most positions yielded at once.

    Yields:
        (slice of positions, logits float32 (positions, vocab_size)); the array is valid until the next step.

    Raises:
        ConfigError: the executor's KV pool is smaller than the sequence.
    """
    num_blocks = -(-len(tokens) // BLOCK_SIZE)
    if num_blocks > executor.num_blocks:
        raise ConfigError(f"{len(tokens)} tokens need {num_blocks} KV blocks; the executor has {executor.num_blocks}.")
    start = 0
    while start < len(tokens):
        rows = min(executor.max_rows, first - start if start < first else logit_rows)
        end = min(start + rows, len(tokens))
        logits = executor.forward(_one_sequence(tokens, start, end, num_blocks, wants_logits=start >= first))
        if start >= first:
            yield slice(start, end), logits
        start = end


def window_log_probabilities(executor: ForwardPass, window: Tokens, first: int) -> NDArray[np.float64]:
    """Natural-log probabilities that the executor gave to the tokens after position `first` of a window.

    Returns:
        float64 (len(window) - 1 - first,): entry i is of token first + 1 + i, given all before it.
    """
    found = np.empty(len(window) - 1 - first)
    for positions, logits in iterate_logits(executor, window[:-1], first):
        targets = window[positions.start + 1 : positions.stop + 1]
        found[positions.start - first : positions.stop - first] = log_softmax(logits)[np.arange(len(targets)), targets]
    return found


def score_windows(executor: ForwardPass, windows: Sequence[Tokens]) -> TextScore:
    """Perplexity over the second half of each window, so that every scored token has at least half a window before it.

    As llama.cpp's perplexity tool: of a window of n tokens, those from n / 2 + 1 on are scored.
    """
    return score_of(np.concatenate([window_log_probabilities(executor, w, len(w) // 2) for w in windows]))


def score_of(log_probabilities: NDArray[np.float64]) -> TextScore:
    """Mean and standard error of the negative log-probabilities of tokens."""
    count = len(log_probabilities)
    error = float(log_probabilities.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return TextScore(count, -float(log_probabilities.mean()), error)


def compare_executors(reference: ForwardPass, candidate: ForwardPass, windows: Sequence[Tokens]) -> Agreement:
    """Same top token and KL divergence over all positions of the windows' second halves, the last included.

    Both executors read the same tokens at every position; neither is fed what it would have said itself.
    """
    pieces = [
        _compare(log_softmax(expected), log_softmax(found))
        for window in windows
        for expected, found in _paired_logits(reference, candidate, window, len(window) // 2)
    ]
    same_top, kl, error = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Agreement(
        num_positions=len(kl),
        same_top=float(same_top.mean()),
        mean_kl=float(kl.mean()),
        largest_kl=float(kl.max()),
        mean_absolute_error=float(error.mean()),
    )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities of rows of logits, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


Columns = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]


def _compare(expected: NDArray[np.float64], found: NDArray[np.float64]) -> Columns:
    """Same top token, KL(expected || found) and mean absolute difference, an entry for each row."""
    difference = expected - found
    return (
        expected.argmax(axis=-1) == found.argmax(axis=-1),
        (np.exp(expected) * difference).sum(axis=-1),
        np.abs(difference).mean(axis=-1),
    )


def _paired_logits(
    reference: ForwardPass, candidate: ForwardPass, window: Tokens, first: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Logits of both executors for the same positions, step by step."""
    rows = min(MAX_LOGIT_ROWS, reference.max_rows, candidate.max_rows)
    expected = iterate_logits(reference, window, first, logit_rows=rows)
    found = iterate_logits(candidate, window, first, logit_rows=rows)
    for (_, expected_logits), (_, found_logits) in zip(expected, found, strict=True):
        yield expected_logits, found_logits


def _one_sequence(tokens: Tokens, start: int, end: int, num_blocks: int, *, wants_logits: bool) -> ForwardBatch:
    rows = end - start
    return ForwardBatch(
        token_ids=np.ascontiguousarray(tokens[start:end], dtype=np.int32),
        positions=np.arange(start, end, dtype=np.int32),
        sequence_starts=np.array([0, rows], dtype=np.int32),
        block_tables=np.arange(num_blocks, dtype=np.int32)[None, :],
        logit_rows=np.arange(rows if wants_logits else 0, dtype=np.int32),
    )
