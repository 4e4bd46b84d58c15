"""Wire types of the Responses API: what a request may hold, the response object, and the events of a streamed one."""

from typing import Any, ClassVar, Literal

import msgspec

from vivace.server.fields import RefusedField
from vivace.server.requests import GenerationFields, WireMessage
from vivace.server.responses import WireLogprob

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

LOGPROBS = "message.output_text.logprobs"
"""The one value of `include` that is known here."""


class InputItem(WireMessage, kw_only=True):
    """One item of the input: a message. `id` and `status` come back with items of earlier answers."""

    type: str = "message"
    id: str | None = None
    status: str | None = None


class TextFormat(msgspec.Struct, kw_only=True):
    """What the text has to look like: type `text`, `json_object` or `json_schema`; `strict` is always so here."""

    type: str = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, object] | None = None
    strict: bool | None = None


class TextSettings(msgspec.Struct, kw_only=True):
    """The field `text` of a request."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ResponseRequest(GenerationFields, kw_only=True):
    """Body of POST /v1/responses."""

    refused: ClassVar[dict[str, RefusedField]] = {
        "conversation": RefusedField("Stored conversations", "Use previous_response_id, or send the whole input."),
        "prompt": RefusedField("Prompt templates", "Send instructions and input."),
        "reasoning": RefusedField("Reasoning settings", "Leave the field out.", ({},)),
        "max_tool_calls": RefusedField("Tool calling", "Leave the field out."),
        "context_management": RefusedField("Compaction", 'Leave the field out, or send "truncation": "auto".', ([],)),
        "background_options": RefusedField("Completion windows", "Leave the field out.", ({},)),
    }

    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    truncation: str | None = None
    text: TextSettings | None = None
    metadata: dict[str, str] | None = None


class OutputText(msgspec.Struct, kw_only=True):
    """The text of an answer, or of the part of one that is there."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[WireLogprob] = []


class OutputMessage(msgspec.Struct, kw_only=True):
    """The one item of an answer."""

    id: str
    type: Literal["message"] = "message"
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class IncompleteDetails(msgspec.Struct):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(msgspec.Struct):
    """Why there is no answer."""

    code: str
    message: str


class CachedDetails(msgspec.Struct):
    """How much of the input did not have to be computed."""

    cached_tokens: int


class ReasoningDetails(msgspec.Struct):
    """No model here hides a part of its answer."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """Token counts of a response."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: CachedDetails
    output_tokens_details: ReasoningDetails


class ResponseSettings(msgspec.Struct, kw_only=True):
    """What a request asked for, told back in its response."""

    model: str
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool = False
    store: bool = True
    temperature: float
    top_p: float
    top_logprobs: int = 0
    max_output_tokens: int | None = None
    truncation: str = "disabled"
    text: dict[str, dict[str, Any]] = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    metadata: dict[str, str] = {}


class ResponseBody(ResponseSettings, kw_only=True):
    """A response: what was asked, how far it is, and the answer."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    output: list[OutputMessage]
    usage: ResponseUsage | None = None
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []


class ResponseEvent(msgspec.Struct, kw_only=True):
    """An event that carries the whole response. `type` is written first: `wire_format.TypedFormat` relies on it."""

    type: str
    response: ResponseBody


class ItemEvent(msgspec.Struct, kw_only=True):
    """An item begins or is whole."""

    type: str
    output_index: int = 0
    item: OutputMessage


class PartEvent(msgspec.Struct, kw_only=True):
    """A content part begins or is whole."""

    type: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: OutputText


class DeltaEvent(msgspec.Struct, kw_only=True):
    """More text."""

    type: str = "response.output_text.delta"
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str
    logprobs: list[WireLogprob] = []


class TextDoneEvent(msgspec.Struct, kw_only=True):
    """The text is whole."""

    type: str = "response.output_text.done"
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str
    logprobs: list[WireLogprob] = []


class DeletedResponse(msgspec.Struct, kw_only=True):
    """The body of DELETE /v1/responses/{id}."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
