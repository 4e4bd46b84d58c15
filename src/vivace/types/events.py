"""What the engine tells about a request while it works, token by token (before any text exists)."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vivace.types.errors import VivaceError
from vivace.types.speculation import SpeculationUsage

FinishReason = Literal["stop", "length", "cancelled", "content_filter", "timeout"]
"""Why a choice ended; the engine gives the first three, a stream's safety filter and hard timeout the others."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of the drawn token and of the most likely ones, before temperature and penalties."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class TokenEvent(NamedTuple):  # one a token: a tuple takes a third of the time of a frozen dataclass
    """Choice number `choice` of the request got one more token. `index` counts from 0 within the answer."""

    request_id: str
    choice: int
    index: int  # type: ignore[assignment]  # nobody asks an event for tuple.index
    token_id: int
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """Choice `choice` has ended; exactly one per choice unless the request fails.

    A stop token or end-of-sequence token is counted in `num_generated` but not sent as a TokenEvent.
    `speculation`: what drafts did for it, None where nobody guesses.
    """

    request_id: str
    choice: int
    reason: FinishReason
    num_prompt_tokens: int
    num_generated: int
    num_cached_tokens: int = 0
    speculation: SpeculationUsage | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class FailEvent:
    """The whole request ended in an error; no further event follows."""

    request_id: str
    error: VivaceError


EngineEvent = TokenEvent | FinishEvent | FailEvent
