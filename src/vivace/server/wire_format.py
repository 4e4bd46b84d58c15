"""How the events of a log look on the wire: plain chunks with a terminator, or events that carry type and number."""

from typing import Protocol

from vivace.stream.log import LogEvent

DONE = b"data: [DONE]\n\n"


class WireFormat(Protocol):
    """The format of one API."""

    @property
    def ending(self) -> bytes:
        """What ends a stream of server-sent events."""
        ...

    def name(self, event: LogEvent) -> str:
        """The event's name, "" for none."""
        ...

    def data(self, event: LogEvent) -> bytes:
        """Its JSON object, without a raw newline."""
        ...


class ChunkFormat:
    """Chat and text completions: the payload as it was written, and `[DONE]` at the end."""

    ending = DONE

    def name(self, event: LogEvent) -> str:
        """Only events that a client asked for have one."""
        return event.name

    def data(self, event: LogEvent) -> bytes:
        """The payload."""
        return event.payload


class TypedFormat:
    """The Responses API: `type` names the event and `sequence_number` counts from 0; the last event is the end.

    The number is put in here, because only the log knows it. Payloads begin with `{"type":"...",`.
    """

    ending = b""

    def name(self, event: LogEvent) -> str:
        """The type; an event of ours that a client asked for is of the type `vivace.` and its name."""
        return f"vivace.{event.name}" if event.name else event.payload.split(b'"', 4)[3].decode()

    def data(self, event: LogEvent) -> bytes:
        """The payload with its number."""
        kind = b'"type":"vivace.%b",' % event.name.encode() if event.name else b""
        return b'{%b"sequence_number":%d,%b' % (kind, event.number - 1, event.payload[1:])


def server_sent(event: LogEvent, wire: WireFormat) -> bytes:
    """One event in the format of server-sent events."""
    name = wire.name(event)
    line = b"event: " + name.encode() + b"\n" if name else b""
    return b"id: %d\n%bdata: %b\n\n" % (event.number, line, wire.data(event))
