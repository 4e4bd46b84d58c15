"""How the tokens of one choice are drawn: its sampling parameters with everything that stays fixed over an answer."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vivace.sample.randomness import redraw_seed
from vivace.types.drawing import DrawNumbers
from vivace.types.grammar import TokenMask
from vivace.types.request import SamplingParams

GREEDY_BELOW = 1e-5  # temperatures under it only ever pick the likeliest token; dividing by them would overflow


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """Fixed for one choice of one request.

    Args:
        params: what the caller asked for.
        seed: the seed in use, drawn once where the caller gave none.
        choice: number of the answer within its request.
        num_prompt: prompt tokens; the penalties of the answer alone start after them.
        num_logprobs: alternatives to report beside the drawn token, or None for no log-probabilities.
        attempt: a number above 0 stands for another random stream of the same seed.
        banned_at: the position at which `banned` may not be drawn.
        banned: token ids.
        grammar: what the answer has to look like, with a state of its own; None: anything.
    """

    params: SamplingParams
    seed: int
    choice: int = 0
    num_prompt: int = 0
    num_logprobs: int | None = None
    attempt: int = 0
    banned_at: int = -1
    banned: tuple[int, ...] = ()
    grammar: TokenMask | None = field(default=None, compare=False)
    is_greedy: bool = field(init=False)
    is_adjusted: bool = field(init=False)
    plain: DrawNumbers = field(init=False, compare=False)
    """The same for an executor that draws by itself; `banned` and `grammar` are not in it."""

    def __post_init__(self) -> None:
        params = self.params
        penalised = params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0
        object.__setattr__(self, "is_greedy", params.temperature < GREEDY_BELOW or params.top_k == 1)
        object.__setattr__(self, "is_adjusted", penalised or bool(params.logit_bias))
        object.__setattr__(self, "plain", _numbers_of(self))

    def draws_plainly(self, position: int) -> bool:
        """Whether `plain` says all about the token at a position, and nothing but the token is wanted."""
        is_free = self.grammar is None and self.num_logprobs is None
        return is_free and not (self.banned and self.banned_at == position)


@dataclass(slots=True)
class DrawRow:
    """One row to draw from: its fixed settings and all known tokens, int32 (n,); the new token gets position n."""

    settings: DrawSettings
    tokens: NDArray[np.int32]


def _numbers_of(settings: DrawSettings) -> DrawNumbers:
    params = settings.params
    seed = redraw_seed(settings.seed, settings.attempt) % 2**64
    numbers = (
        *(params.temperature, params.top_p, params.min_p),
        *(params.repetition_penalty, params.presence_penalty, params.frequency_penalty),
        *(params.top_k, settings.num_prompt, settings.choice, seed >> 32, seed % 2**32, settings.is_greedy),
    )
    ids, values = zip(*params.logit_bias, strict=True) if params.logit_bias else ((), ())
    return DrawNumbers(
        np.array(numbers, dtype=np.float64), np.array(ids, dtype=np.int32), np.array(values, dtype=np.float32)
    )
