"""The messages of a WebSocket, both ways. Every one is a JSON object with a `type`; `id` is the client's own name for
the answer that it is about."""

import msgspec

from vivace.server.errors import ErrorBody, ErrorObject
from vivace.server.requests import ReportRequest
from vivace.types.errors import RequestError

MAX_ID = 128


class SocketMessage(ReportRequest, kw_only=True, forbid_unknown_fields=True):
    """What a client says. Which fields a message needs follows from its type."""

    type: str
    id: str = ""
    body: msgspec.Raw = msgspec.Raw(b"")
    stream_id: str = ""
    starting_after: int = 0


class StreamOpened(msgspec.Struct, kw_only=True):
    """An answer is being sent from here on; its name is for another connection to resume it."""

    type: str = "stream"
    id: str
    stream_id: str
    starting_after: int


class StreamDone(msgspec.Struct, kw_only=True):
    """The last message about an answer."""

    type: str = "done"
    id: str
    status: str


class SocketError(msgspec.Struct, kw_only=True):
    """Something that was asked cannot be done, or an answer failed."""

    type: str = "error"
    id: str
    error: ErrorObject


class Pong(msgspec.Struct, kw_only=True):
    """The answer to a ping, for clients that cannot see the protocol's own (browsers)."""

    type: str = "pong"
    id: str


def decode_message(text: str | bytes) -> SocketMessage:
    """What a client said.

    Raises:
        RequestError: it is no message.
    """
    try:
        message = msgspec.json.decode(text, type=SocketMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"The message cannot be read: {error}.", "See docs/streaming.md for their form.") from None
    if len(message.id) > MAX_ID or not 0 <= message.starting_after < 2**63:
        raise RequestError("A field of the message is out of range.", f"An id has at most {MAX_ID} characters.")
    return message


def event_message(tag: str, number: int, name: str, data: bytes) -> bytes:
    """An event of an answer; `data` is its JSON object."""
    head = msgspec.json.encode({"type": "event", "id": tag, "number": number, "name": name})
    return b'%b,"data":%b}' % (head[:-1], data)


def error_message(tag: str, body: ErrorBody) -> bytes:
    """An error object about an answer, or "" about the connection."""
    return msgspec.json.encode(SocketError(id=tag, error=body.error))
