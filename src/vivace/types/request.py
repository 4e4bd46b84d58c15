"""What a caller asks for, once checked: requests are frozen, and valid by construction (see `engine/admission.py`)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; `role` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is drawn from logits. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off.

    Penalties as in the OpenAI API (presence, frequency) and CTRL (repetition, 1 is off). The random number for the
    token at position p depends on (seed, choice, p) alone, so a seeded answer never depends on what else is running.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class StopParams:
    """When an answer ends. `max_tokens` None means: until the context is full."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One admitted request: `n` independent answers to one tokenised prompt.

    `logprobs` is None (off) or how many alternatives to report beside each drawn token (0 to 20). `continues_text`: the
    answer goes on from the prompt's text (a raw completion) and is not a text of its own (a turn of a chat).
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stopping: StopParams = field(default_factory=StopParams)
    n: int = 1
    logprobs: int | None = None
    continues_text: bool = False
