"""Server-sent events: bytes of one event, and the response that sends them as they come."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import msgspec
from starlette.types import Receive, Scope, Send

from vivace.server.disconnect import while_connected
from vivace.server.errors import error_body
from vivace.types.errors import EngineError, VivaceError

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # asks a proxy in between not to hold events back
]

_encoder = msgspec.json.Encoder()


def event(value: msgspec.Struct) -> bytes:
    """One event that carries a JSON object (which never holds a raw newline)."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


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


async def with_ending(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Close a stream truthfully: the terminator at its end, and an error object before it if the work failed.

    Raises:
        Exception: what `events` raises before its first event, when a plain error response can still tell it.
    """
    started = False
    try:
        async with aclosing(events):
            async for payload in events:
                started = True
                yield payload
    except VivaceError as error:
        if not started:
            raise
        yield event(error_body(error))
    except Exception:
        if not started:
            raise
        logger.exception("a stream failed")
        yield event(error_body(EngineError("The server made a mistake of its own.", "Its log says more.")))
    yield DONE
