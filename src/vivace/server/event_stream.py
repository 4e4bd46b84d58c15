"""A stream as server-sent events, and the response that sends them as they come."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from vivace.server.disconnect import while_connected
from vivace.server.errors import error_body
from vivace.server.kinds import KINDS
from vivace.server.wire_format import server_sent
from vivace.stream.errors import OffsetLostError
from vivace.stream.readable import ReadableStream
from vivace.stream.reader import StreamReader

KEEP_ALIVE = b": still here\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # asks a proxy in between not to hold events back
]


class EventStream:
    """ASGI response that sends what a generator yields, one write an event.

    The status line waits for the first event, so a request that fails before it still gets a plain error response.
    When the client leaves, the generator is closed, which ends the work behind it.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None) -> None:
        self._events = events
        self._headers = [*_HEADERS, *((name.encode(), value.encode()) for name, value in (headers or {}).items())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raises what the generator raises before its first event, and ClientGone."""
        await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        started = False
        async with aclosing(self._events) as events:
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

    def discard(self, run: ReadableStream) -> None:
        """Forget a stream."""
        ...


async def sse_events(
    streams: Readers, run: ReadableStream, starting_after: int, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """A stream as server-sent events.

    Raises:
        VivaceError: it failed before it wrote anything; it is forgotten then.
    """
    wire = KINDS[run.record.kind].wire
    started = False
    try:
        with streams.reader(run, starting_after, keep_alive_s) as reader:
            async with aclosing(reader.events()) as events:
                async for event in events:
                    if event is None:
                        payload = KEEP_ALIVE
                    elif event.name and not run.options.events:
                        continue
                    else:
                        payload = server_sent(event, wire)
                    started = True
                    yield payload
    except OffsetLostError as error:
        if not started:
            raise
        yield b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"
    if run.failure is not None and not started and starting_after == 0:
        streams.discard(run)
        raise run.failure
    if wire.ending:
        yield wire.ending
