"""The kinds of replies that are read from a log. A kind is a row of KINDS, found by the type of its reply."""

from dataclasses import dataclass
from typing import Any

import msgspec

from vivace.server.chat_reply import ChatReply
from vivace.server.completion_reply import CompletionReply
from vivace.server.reply import Kept, Reply
from vivace.server.response_reply import ResponseReply
from vivace.server.wire_format import ChunkFormat, TypedFormat, WireFormat


@dataclass(frozen=True, slots=True)
class Kind:
    """One front end.

    Args:
        name: under which the journal keeps it.
        reply: type of its replies.
        kept: type that the journal's bytes decode to.
        wire: how its events are sent.
    """

    name: str
    reply: type[Any]
    kept: Any
    wire: WireFormat


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("chat", ChatReply, Kept[ChatReply], ChunkFormat()),
        Kind("completion", CompletionReply, Kept[CompletionReply], ChunkFormat()),
        Kind("response", ResponseReply, Kept[ResponseReply], TypedFormat()),
    )
}


def kind_of(reply: Reply) -> Kind:
    """The row of a reply."""
    return next(kind for kind in KINDS.values() if isinstance(reply, kind.reply))


def decode_kept(kind: str, data: bytes) -> Kept[Any]:
    """What the journal kept of a request of this kind."""
    kept: Kept[Any] = msgspec.json.decode(data, type=KINDS[kind].kept)
    return kept
