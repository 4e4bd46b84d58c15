"""From wire types to the engine's nouns. Shapes are settled here; ranges and lengths are the engine's admission's."""

from collections.abc import Sequence

import msgspec

from vivace.server.requests import GenerationFields, WireMessage
from vivace.server.structure import structured_outputs
from vivace.types.errors import RequestError, UnknownModelError
from vivace.types.request import ChatMessage

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles on the wire and what the chat templates call them."""

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
"""Types of content parts that are text: of the chat API, and of the Responses API."""

_PARAMETERS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "n",
    "max_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
)


def check_model(asked: str | None, served: str) -> None:
    """Refuse a request for another model than the one that is served; no name means that one.

    Raises:
        UnknownModelError: `asked` is another name.
    """
    if asked is not None and asked != served:
        raise UnknownModelError(
            f"The model {asked[:128]!r} is not served here.", f"Use {served!r} (see GET /v1/models).", param="model"
        )


def parameters(fields: GenerationFields) -> dict[str, object]:
    """The parameters that both generating endpoints share, as the engine's admission takes them (null is absent).

    Raises:
        RequestError: two fields that mean the same differ.
    """
    given = {name: getattr(fields, name) for name in _PARAMETERS}
    given["tier"] = fields.priority
    given["structured_outputs"] = structured_outputs(fields)
    if fields.vivace is not None:
        service = msgspec.structs.asdict(fields.vivace)
        if fields.priority is not None and service["tier"] not in (None, fields.priority):
            raise RequestError("priority and vivace.tier differ.", "Send only one of them.", param="priority")
        given |= {name: value for name, value in service.items() if value is not None}
    return {name: value for name, value in given.items() if value is not None}


def wants_usage(fields: GenerationFields) -> bool:
    """Whether a streamed answer ends with its token counts.

    Raises:
        RequestError: stream options for an answer that is not streamed.
    """
    if fields.stream_options is None:
        return False
    if not fields.stream:
        raise RequestError(
            "stream_options needs a streamed answer.", 'Send "stream": true as well.', param="stream_options"
        )
    return bool(fields.stream_options.include_usage)


def chat_messages(messages: Sequence[WireMessage], field: str = "messages") -> list[ChatMessage]:
    """The conversation as the chat template reads it; `field` of the request holds it.

    Raises:
        RequestError: no messages, an unknown role, or content that is not text.
    """
    if not messages:
        raise RequestError("The list of messages is empty.", "Send at least one message.", param=field)
    return [_chat_message(message, f"{field}[{position}]") for position, message in enumerate(messages)]


def _chat_message(message: WireMessage, where: str) -> ChatMessage:
    role = ROLES.get(message.role)
    if role is None:
        raise RequestError(
            f"The role {message.role[:64]!r} is not supported.",
            f"Use one of {', '.join(ROLES)}.",
            param=f"{where}.role",
        )
    for name in ("tool_calls", "function_call", "audio"):
        if getattr(message, name):
            raise RequestError(
                f"Messages with {name!r} are not supported.", "Send text content only.", param=f"{where}.{name}"
            )
    return ChatMessage(role, _content_text(message, f"{where}.content"))


def _content_text(message: WireMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        raise RequestError("The message has no content.", 'Send text; an empty message is "".', param=where)
    for position, part in enumerate(message.content):
        if part.type not in TEXT_PARTS or part.text is None:
            raise RequestError(
                f"A content part of type {part.type[:64]!r} is not supported.",
                'Send parts of the form {"type": "text", "text": "..."}.',
                param=f"{where}[{position}]",
            )
    return "\n".join(part.text or "" for part in message.content)
