"""Wire types of answers, in the shapes of the OpenAI API. UNSET fields are not written; None is written as null."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

WireFinish = Literal["stop", "length", "content_filter"]


class PromptDetails(msgspec.Struct):
    """How much of the prompt did not have to be computed."""

    cached_tokens: int


class WireSpeculation(msgspec.Struct):
    """What drafts did for an answer: counts, by position (first draft first), over time (a figure for 50 tokens)."""

    drafted: int
    accepted: int
    accepted_at: list[int]
    tried_at: list[int]
    drafts_over_time: list[float]
    tokens_per_turn: float
    speedup: float


class VivaceUsage(msgspec.Struct):
    """What no field of the OpenAI API tells: tokens of a long chat that were left out of the prompt, and drafts."""

    dropped_tokens: int | UnsetType = UNSET
    speculation: WireSpeculation | UnsetType = UNSET


class WireUsage(msgspec.Struct):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    vivace: VivaceUsage | UnsetType = UNSET


class WireAlternative(msgspec.Struct):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class WireLogprob(msgspec.Struct):
    """A drawn token of a chat answer."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[WireAlternative]


class ChatLogprobs(msgspec.Struct):
    """Log probabilities of a chat answer or of a piece of one."""

    content: list[WireLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct):
    """Log probabilities of a completion, in the older API's columns."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class AssistantMessage(msgspec.Struct, kw_only=True):
    """A whole answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct):
    """One whole answer and how it ended."""

    index: int
    message: AssistantMessage
    finish_reason: WireFinish
    logprobs: ChatLogprobs | None = None


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The body of a chat answer that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: WireUsage


class Delta(msgspec.Struct):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: WireFinish | None = None


class ChatChunk(msgspec.Struct, kw_only=True):
    """One event of a streamed chat answer. `usage` is null on every chunk but the last, when it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: WireUsage | UnsetType | None = UNSET


class CompletionChoice(msgspec.Struct):
    """One whole completion, or a piece of one when streamed (`finish_reason` null until the last)."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: WireFinish | None = None


class Completion(msgspec.Struct, kw_only=True):
    """The body of a completion, and of each event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: WireUsage | UnsetType | None = UNSET


class ModelObject(msgspec.Struct, kw_only=True):
    """A model that this server serves. `context_length` is an extension."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["vivace"] = "vivace"
    context_length: int


class ModelList(msgspec.Struct, kw_only=True):
    """The body of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class Tokens(msgspec.Struct):
    """The body of POST /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizedText(msgspec.Struct):
    """The body of POST /detokenize."""

    text: str


class StreamState(msgspec.Struct):
    """How far a stream is: the answer to the stop verb and to a report."""

    id: str
    status: str
    last_event: int
