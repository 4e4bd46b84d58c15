"""The kinds of replies that are read from a log. A kind is a row of KINDS, found by the type of its reply."""

from dataclasses import dataclass
from typing import Any

import msgspec

from vivace.server.chat_reply import ChatReply
from vivace.server.completion_reply import CompletionReply
from vivace.server.reply import Kept, Reply
from vivace.server.response_reply import ResponseReply
from vivace.server.wire_format import ChunkFormat, TypedFormat, WireFormat
from vivace.types.grammar import Grammar, GrammarSource


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


def encode_kept(kept: Kept[Any]) -> bytes:
    """What the journal keeps; a grammar as it was written."""
    return msgspec.json.encode(kept, enc_hook=_written)


def decode_kept(kind: str, data: bytes) -> Kept[Any]:
    """What the journal kept of a request of this kind."""
    kept: Kept[Any] = msgspec.json.decode(data, type=KINDS[kind].kept, dec_hook=_read)
    return kept


def _written(value: object) -> GrammarSource:
    if isinstance(value, Grammar):
        return value.source
    raise NotImplementedError(f"{type(value).__name__} cannot be kept")


def _read(wanted: type, value: object) -> GrammarSource:
    if wanted is Grammar:
        return msgspec.convert(value, GrammarSource)
    raise NotImplementedError(f"{wanted.__name__} cannot be read")
