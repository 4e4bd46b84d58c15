"""Answers over a WebSocket for code in an event loop; as `socket_synchronous`, awaited."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from vivace.client.dialogue import Dialogue, TryAgainError, socket_url
from vivace.client.events import Position, ServerEvent
from vivace.client.retry import Backoff, RetryPolicy
from vivace.client.socket_wire import MAX_MESSAGE_BYTES, wait_before_reconnect
from vivace.client.wire import chat_body, headers


class AsyncSocketAnswer:
    """One answer; iterate over its events. Its verbs may be called while it is read, also while it reconnects."""

    def __init__(self, client: "AsyncSocketClient", dialogue: Dialogue) -> None:
        self._client = client
        self._dialogue = dialogue
        self._connection: ClientConnection | None = None

    @property
    def position(self) -> Position:
        """How far it is; kept, it resumes in another process."""
        return self._dialogue.position

    async def text(self) -> AsyncGenerator[str, None]:
        """The answer piece by piece; raises as iterating does."""
        async for event in self:
            if event.text:
                yield event.text

    async def stop(self) -> None:
        """End the work; what there is of the text still comes."""
        await self._say(self._dialogue.stop())

    async def pace(self, name: str | None = None, speed: float | None = None) -> None:
        """Have text shown at another pace: "off" or "reader", and how fast that reader is (1 is usual)."""
        await self._say(self._dialogue.pace(name, speed))

    async def acknowledge(self, number: int | None = None, **report: Any) -> None:
        """Tell the last event that was read, and of `buffer_s`, `buffer_utilisation`, `rtt_s`, `stalls` what is known.

        Without `rtt_s` the round trip of the connection's own pings is told.
        """
        latency_s = getattr(self._connection, "latency", 0.0)
        await self._say(self._dialogue.acknowledge(number, **{"rtt_s": latency_s or None, **report}))

    async def __aiter__(self) -> AsyncGenerator[ServerEvent, None]:
        """Every event, once, in order, however often the connection breaks.

        Raises:
            StreamBrokenError: the server refused or failed, or the connection did not come back.
        """
        client, position = self._client, self.position
        backoff = Backoff(client.retry)
        while not position.is_done:
            failure: BaseException | None = None
            try:
                async with client.connected() as self._connection:
                    async for event in self._heard(self._connection):
                        backoff.note_progress()
                        yield event
            except (WebSocketException, InvalidHandshake, TryAgainError, OSError) as error:
                failure = error
            finally:
                self._connection = None
            if not position.is_done:
                await client.sleep(wait_before_reconnect(backoff, failure))

    async def _heard(self, connection: ClientConnection) -> AsyncGenerator[ServerEvent, None]:
        await connection.send(self._dialogue.opening())
        while not self.position.is_done:
            async with asyncio.timeout(self._client.timeout_s):
                message = await connection.recv()
            event, is_open = self._dialogue.take(message)
            for wish in self._dialogue.wishes() if is_open else ():
                await connection.send(wish)
            if event is not None:
                yield event

    async def _say(self, message: str) -> None:
        """Say it now; what was wanted is said again on the next connection where this one is lost."""
        connection = self._connection
        if connection is not None and self.position.stream_id:
            with contextlib.suppress(WebSocketException, OSError):
                await connection.send(message)


class AsyncSocketClient:
    """Streams answers of a vivace server over WebSockets; arguments as `socket_synchronous.SocketClient`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout_s: float = 60.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.retry = retry or RetryPolicy()
        self.timeout_s = timeout_s
        self.sleep = sleep
        self._url = socket_url(base_url)
        self._headers = headers(api_key)

    def send(self, messages: Sequence[Mapping[str, Any]], **fields: Any) -> AsyncSocketAnswer:
        """Ask for the answer to a conversation; it is sent when the answer is read.

        Args:
            messages: the conversation, as the API takes it.
            fields: other fields of the request body.
        """
        return AsyncSocketAnswer(self, Dialogue(chat_body(messages, fields), Position()))

    def resume(self, position: Position) -> AsyncSocketAnswer:
        """Read a stream on from where it was left, over whatever it was begun."""
        return AsyncSocketAnswer(self, Dialogue({}, position))

    def connected(self) -> connect:
        """A new connection, to be awaited."""
        return connect(
            self._url,
            additional_headers=self._headers,
            open_timeout=self.timeout_s,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        )
