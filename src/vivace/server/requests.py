"""Wire types of request bodies: what the JSON may hold, field by field. Ranges are the engine's admission's."""

import msgspec


class ContentPart(msgspec.Struct):
    """One part of a message; only parts of type "text" are taken."""

    type: str
    text: str | None = None


class WireMessage(msgspec.Struct):
    """One message of a conversation. Fields of other kinds of answers are let in only when they are empty."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[object] | None = None
    function_call: dict[str, object] | None = None
    audio: dict[str, object] | None = None


class StreamOptions(msgspec.Struct):
    """`include_usage` asks for a last chunk with token counts. `include_obfuscation` is accepted and does nothing.

    The others are extensions, see docs/streaming.md.
    """

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    flush: str | None = None
    coalesce: bool | None = None
    pace: str | None = None
    on_disconnect: str | float | None = None
    events: bool | None = None
    soft_timeout_s: float | None = None
    hard_timeout_s: float | None = None
    deadline_s: float | None = None


class ServiceFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who asks and how soon they need it: fields of `types.request.ServiceLevel`, all optional.

    `long_chat` says what happens to a conversation that has outgrown the context (see engine/long_chat.py), `kv_policy`
    which keys and values stay (see cache/policies.py).
    """

    long_chat: str | None = None
    kv_policy: str | None = None
    tier: int | None = None
    tenant: str | None = None
    kind: str | None = None
    ttft_s: float | None = None
    inter_token_s: float | None = None
    queue_timeout_s: float | None = None
    reading_tokens_per_s: float | None = None


class JsonSchema(msgspec.Struct, kw_only=True):
    """The schema of a response format; `strict` is always so here, name and description are the caller's own."""

    schema: dict[str, object]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """What an answer has to look like, as the OpenAI API says it: type `text`, `json_object` or `json_schema`."""

    type: str
    json_schema: JsonSchema | None = None


class GenerationFields(msgspec.Struct, kw_only=True):
    """What both generating endpoints take. Null means the default, as in the OpenAI API.

    top_k, min_p, repetition_penalty, stop_token_ids, ignore_eos, priority (the same as vivace.tier) and vivace are
    extensions, and so are structured_outputs and guided_*: what vLLM calls the structure of answers, and called it.
    """

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    vivace: ServiceFields | None = None
    structured_outputs: dict[str, object] | None = None
    guided_json: str | dict[str, object] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatCompletionRequest(GenerationFields, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: list[WireMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class CompletionRequest(GenerationFields, kw_only=True):
    """Body of POST /v1/completions. A prompt is text, token ids, or a list of either."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None


class ConversationRequest(msgspec.Struct, kw_only=True):
    """Body of POST /v1/sessions, PUT /v1/sessions/{id} and POST /v1/hints."""

    messages: list[WireMessage]
    model: str | None = None
    vivace: ServiceFields | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Body of POST /tokenize: one of `text` (also named `prompt` or `content`) and `messages`."""

    model: str | None = None
    text: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: list[WireMessage] | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """Body of POST /detokenize."""

    tokens: list[int]
    model: str | None = None


class ReportRequest(msgspec.Struct, kw_only=True):
    """Body of POST /v1/streams/{id}/ack: what a reader tells about itself, and how fast it wants text.

    `number` is the last event read; `buffer_s` seconds of text that wait to be read; `buffer_utilisation` how full the
    client's playback buffer is, 0 to 1; `stalls` counts waits since the last report.
    """

    number: int | None = None
    buffer_s: float | None = None
    buffer_utilisation: float | None = None
    rtt_s: float | None = None
    stalls: int | None = None
    pace: str | None = None
    speed: float | None = None
