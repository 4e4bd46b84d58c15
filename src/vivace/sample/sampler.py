"""Rows of logits to tokens. Keeps no state: a row's token depends on that row, its settings and its history alone."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.sample.filters import draw
from vivace.sample.grammar import within_grammar
from vivace.sample.logprobs import token_logprob
from vivace.sample.penalties import adjust, without
from vivace.sample.randomness import redraw_seed, uniform
from vivace.sample.settings import DrawRow
from vivace.types.drawing import Drawer
from vivace.types.errors import EngineError
from vivace.types.step import Draw


class Sampler:
    """Draws one token a row.

    Args:
        drawer: draws instead of numpy where it can; None: numpy draws. Both draw from the same distribution with the
            same random numbers; weights that differ in the last bit may tell apart one token in a million.
    """

    def __init__(self, drawer: Drawer | None = None) -> None:
        self._drawer = drawer

    def sample(self, logits: NDArray[np.float32], rows: Sequence[DrawRow]) -> tuple[Draw, ...]:
        """Draw a token for each row.

        Args:
            logits: float32 (L, vocab); read only.
            rows: L settings with histories, in the same order.

        Returns:
            L draws. A row whose logits hold NaN or +inf, or nothing above -inf, gets an error in place of a token; the
            others are not touched by it. An entry of -inf is a token that cannot be drawn.
        """
        logits = _without_banned(logits, rows)
        if any(row.settings.grammar is not None for row in rows):
            logits, failed = within_grammar(logits, rows)
            return tuple(failed.get(index, draw) for index, draw in enumerate(self._draw(logits, rows)))
        return self._draw(logits, rows)

    def _draw(self, logits: NDArray[np.float32], rows: Sequence[DrawRow]) -> tuple[Draw, ...]:
        if self._drawer is None:
            return tuple(self._sample_row(logits[index], row) for index, row in enumerate(rows))
        settings = [row.settings for row in rows]
        tokens = self._drawer.draw(logits, [mine.plain for mine in settings], [row.tokens for row in rows])
        return draws_of_tokens(tokens, logits, rows)

    def _sample_row(self, raw: NDArray[np.float32], row: DrawRow) -> Draw:
        settings = row.settings
        token_id = int(raw.argmax())  # of a row with a NaN it is the NaN
        if not math.isfinite(raw[token_id]):
            return Draw(-1, error=_broken(float(raw[token_id]), len(row.tokens)))
        logits = raw
        if settings.is_adjusted:
            logits = adjust(raw, row.tokens, settings.num_prompt, settings.params)
            token_id = int(logits.argmax())
        if not settings.is_greedy:
            number = uniform(redraw_seed(settings.seed, settings.attempt), settings.choice, len(row.tokens))
            with np.errstate(over="ignore"):  # a huge logit over a small temperature is an honest 0 or 1
                token_id = draw(logits, settings.params, number)
        return _told(raw, row, token_id)


def draws_of_tokens(tokens: Sequence[int], logits: NDArray[np.float32], rows: Sequence[DrawRow]) -> tuple[Draw, ...]:
    """What a `Drawer` has drawn as draws, with log-probabilities where they were asked for."""
    if not any(row.settings.num_logprobs is not None for row in rows) and min(tokens, default=0) >= 0:
        return tuple(map(Draw, tokens))
    return tuple(_told(logits[index], row, tokens[index]) for index, row in enumerate(rows))


def _without_banned(logits: NDArray[np.float32], rows: Sequence[DrawRow]) -> NDArray[np.float32]:
    """The logits with those banned that may not be drawn here; the array itself where nothing is."""
    banning = [
        index
        for index, row in enumerate(rows)
        if row.settings.banned and row.settings.banned_at == len(row.tokens) and np.isfinite(logits[index].max())
    ]
    if banning:
        logits = logits.copy()
        for index in banning:
            logits[index] = without(logits[index], rows[index].settings.banned)
    return logits


def _told(raw: NDArray[np.float32], row: DrawRow, token_id: int) -> Draw:
    """A drawn token with the log-probabilities that were asked for, or what is wrong with the row."""
    if token_id < 0:
        return Draw(-1, error=_broken(float(raw[raw.argmax()]), len(row.tokens)))
    num_logprobs = row.settings.num_logprobs
    return Draw(token_id, None if num_logprobs is None else token_logprob(raw, token_id, num_logprobs))


def _broken(value: float, position: int) -> EngineError:
    return EngineError(
        f"The model gave {value} as a logit at position {position}.",
        "The model file may be damaged: check its hash, or try another executor.",
    )
