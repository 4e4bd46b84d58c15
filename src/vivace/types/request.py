"""What a caller asks for, once checked: requests are frozen, and valid by construction (see `engine/admission.py`)."""

from dataclasses import dataclass, field

from vivace.types.grammar import Grammar


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
class ServiceLevel:
    """Who asks, and how soon they need their answer. It changes when tokens come and never which ones.

    Args:
        tier: standing of the asker, 0 to MAX_TIER; what a tier is worth is the order's to say (see docs/scheduling.md).
        tenant: whose fair share the request counts against, and whose prefix cache it reads; "" is all without one.
        kind: what sort of request it is, for the estimate of its length; "" where nothing is known.
        ttft_s: the first token is wanted so many seconds after arrival; None: no target of its own.
        inter_token_s: most seconds between two tokens; None: the server's target.
        queue_timeout_s: fail a request that has not started after so many seconds; None: it waits.
        reading_tokens_per_s: how fast the reader takes tokens in; None: the server's assumption.
    """

    tier: int = 0
    tenant: str = ""
    kind: str = ""
    ttft_s: float | None = None
    inter_token_s: float | None = None
    queue_timeout_s: float | None = None
    reading_tokens_per_s: float | None = None


MAX_TIER = 9


@dataclass(frozen=True, slots=True)
class Continuation:
    """An answer that goes on from tokens it has already: after a restart, a rollback or a timeout.

    Those tokens count as the answer's own (penalties, max_tokens, positions of the random stream), so the rest is what
    it would have been without the break.

    Args:
        answer_ids: tokens the answer begins with.
        choice: number of the answer within the request it was asked by; its random stream is kept.
        attempt: how often the answer was taken back to draw anew; each attempt has a random stream of its own.
        banned_first: tokens that may not follow `answer_ids` at once.
    """

    answer_ids: tuple[int, ...] = ()
    choice: int = 0
    attempt: int = 0
    banned_first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One admitted request: `n` independent answers to one tokenised prompt.

    `logprobs` is None (off) or how many alternatives to report beside each drawn token (0 to 20). `continues_text`: the
    answer goes on from the prompt's text (a raw completion) and is not a text of its own (a turn of a chat).
    `dropped_tokens` of the conversation are not in the prompt because it had outgrown the context. A request with a
    `continuation` has one choice. `kv_policy` names a KV policy (cache/policies.py), `context_length` is the most
    tokens of prompt and answer together; None is the engine's own of either. `grammar` says what
    answers have to look like.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stopping: StopParams = field(default_factory=StopParams)
    n: int = 1
    logprobs: int | None = None
    continues_text: bool = False
    dropped_tokens: int = 0
    kv_policy: str | None = None
    context_length: int | None = None
    service_level: ServiceLevel = field(default_factory=ServiceLevel)
    continuation: Continuation | None = None
    grammar: Grammar | None = None

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """Tokens of the answer that are known from the start."""
        return () if self.continuation is None else self.continuation.answer_ids
