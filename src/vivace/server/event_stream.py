"""A stream as server-sent events, and the response that sends them as they come."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from vivace.server.connection import Connection, connection_of
from vivace.server.disconnect import while_connected
from vivace.server.errors import error_body
from vivace.server.kinds import KINDS
from vivace.server.reader_link import ReaderLink
from vivace.server.wire_format import WireFormat, server_sent
from vivace.stream.errors import OffsetLostError
from vivace.stream.gather import gathered
from vivace.stream.log import LogEvent
from vivace.stream.network import NetworkConfig
from vivace.stream.readable import ReadableStream
from vivace.stream.reader import StreamReader

KEEP_ALIVE = b": still here\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # asks a proxy in between not to hold events back
]


class EventStream:
    """ASGI response that sends what a generator yields, one write each.

    The status line waits for the first event, so a request that fails before it still gets a plain error response.
    When the client leaves, the generator is closed, which ends the work behind it.
    """

    def __init__(
        self, events: Callable[[Connection], AsyncGenerator[bytes, None]], headers: Mapping[str, str] | None = None
    ) -> None:
        self._events = events
        self._headers = [*_HEADERS, *((name.encode(), value.encode()) for name, value in (headers or {}).items())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raises what the generator raises before its first event, and ClientGone."""
        await while_connected(receive, self._send_all(send, connection_of(scope)))

    async def _send_all(self, send: Send, connection: Connection) -> None:
        started = False
        async with aclosing(self._events(connection)) as events:
            async for payload in events:
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": self._headers})
                    started = True
                await send({"type": "http.response.body", "body": payload, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Readers(Protocol):
    """Where readers of streams are known, so that reports reach them."""

    def reader(
        self, run: ReadableStream, starting_after: int, idle_s: float | None
    ) -> AbstractContextManager[StreamReader]:
        """A reader, as long as it reads."""
        ...

    @property
    def network(self) -> NetworkConfig:
        """When a reader's network is poor."""
        ...

    def discard(self, run: ReadableStream) -> None:
        """Forget a stream."""
        ...


async def sse_events(
    streams: Readers, run: ReadableStream, starting_after: int, keep_alive_s: float, connection: Connection
) -> AsyncGenerator[bytes, None]:
    """A stream as server-sent events; several at a time where the network is poor.

    Raises:
        VivaceError: it failed before it wrote anything; it is forgotten then.
    """
    wire = KINDS[run.record.kind].wire
    started = False
    try:
        with streams.reader(run, starting_after, keep_alive_s) as reader:
            link = ReaderLink(reader, connection, streams.network)
            async with aclosing(gathered(reader.events(), link.send_every_s)) as batches:
                async for events in batches:
                    payload = b"".join(_payload(event, run, wire) for event in events)
                    if not payload:
                        continue
                    started = True
                    link.sending()
                    yield payload
                    link.sent(events, len(payload))
                    if told := link.take_notice():
                        yield b"event: network\ndata: " + msgspec.json.encode(told) + b"\n\n"
    except OffsetLostError as error:
        if not started:
            raise
        yield b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"
        return  # without the words that say that all was said
    if run.failure is not None and not started and starting_after == 0:
        streams.discard(run)
        raise run.failure
    if wire.ending:
        yield wire.ending


def _payload(event: LogEvent | None, run: ReadableStream, wire: WireFormat) -> bytes:
    if event is None:
        return KEEP_ALIVE
    return b"" if event.name and not run.options.events else server_sent(event, wire)
