"""What a front end shows: answers as text, whole or piece by piece."""

from dataclasses import dataclass, field

from vivace.types.events import FinishReason
from vivace.types.speculation import SpeculationUsage


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request over all its choices; `dropped_tokens` of a long chat were left out of the prompt.

    `speculation`: what drafts did for it; None where nobody guesses.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    dropped_tokens: int = 0
    speculation: SpeculationUsage | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """A drawn token as text and bytes with its natural-log probability and the likeliest alternatives."""

    text: str
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerChunk:
    """A piece of choice `choice`: text that is final, the tokens it came from, and how the choice ended if it did.

    `text` may be empty (a token that completes no character yet, or the closing chunk). `usage` is set on the very last
    chunk of the request only. `attempt`: how often the choice had been taken back when this was drawn.
    """

    choice: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TextLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TextLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """All choices of one request. `str(answer)` is the text of the first."""

    choices: tuple[Choice, ...]
    usage: Usage
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text

    def __str__(self) -> str:
        return self.text
