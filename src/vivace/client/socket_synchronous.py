"""Answers over a WebSocket for code without an event loop: read, stopped, paced and acknowledged on one connection."""

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vivace.client.dialogue import Dialogue, TryAgainError, socket_url
from vivace.client.events import Position, ServerEvent
from vivace.client.retry import Backoff, RetryPolicy
from vivace.client.socket_wire import MAX_MESSAGE_BYTES, wait_before_reconnect
from vivace.client.wire import chat_body, headers


class SocketAnswer:
    """One answer; iterate over its events. Its verbs may be called from any thread, also while it reconnects."""

    def __init__(self, client: "SocketClient", dialogue: Dialogue) -> None:
        self._client = client
        self._dialogue = dialogue
        self._connection: ClientConnection | None = None

    @property
    def position(self) -> Position:
        """How far it is; kept, it resumes in another process."""
        return self._dialogue.position

    def text(self) -> Generator[str, None, None]:
        """The answer piece by piece; raises as iterating does."""
        for event in self:
            if event.text:
                yield event.text

    def stop(self) -> None:
        """End the work; what there is of the text still comes."""
        self._say(self._dialogue.stop())

    def pace(self, name: str | None = None, speed: float | None = None) -> None:
        """Have text shown at another pace: "off" or "reader", and how fast that reader is (1 is usual)."""
        self._say(self._dialogue.pace(name, speed))

    def acknowledge(self, number: int | None = None, **report: Any) -> None:
        """Tell the last event that was read, and of `buffer_s`, `buffer_utilisation`, `rtt_s`, `stalls` what is known.

        Without `rtt_s` the round trip of the connection's own pings is told.
        """
        latency_s = getattr(self._connection, "latency", 0.0)
        self._say(self._dialogue.acknowledge(number, **{"rtt_s": latency_s or None, **report}))

    def __iter__(self) -> Generator[ServerEvent, None, None]:
        """Every event, once, in order, however often the connection breaks.

        Raises:
            StreamBrokenError: the server refused or failed, or the connection did not come back.
        """
        client, position = self._client, self.position
        backoff = Backoff(client.retry)
        while not position.is_done:
            failure: BaseException | None = None
            try:
                with client.connected() as self._connection:
                    for event in self._heard(self._connection):
                        backoff.note_progress()
                        yield event
            except (WebSocketException, InvalidHandshake, TryAgainError, OSError) as error:
                failure = error
            finally:
                self._connection = None
            if not position.is_done:
                client.sleep(wait_before_reconnect(backoff, failure))

    def _heard(self, connection: ClientConnection) -> Generator[ServerEvent, None, None]:
        connection.send(self._dialogue.opening())
        while not self.position.is_done:
            event, is_open = self._dialogue.take(connection.recv(self._client.timeout_s))
            for wish in self._dialogue.wishes() if is_open else ():
                connection.send(wish)
            if event is not None:
                yield event

    def _say(self, message: str) -> None:
        """Say it now; what was wanted is said again on the next connection where this one is lost."""
        connection = self._connection
        if connection is not None and self.position.stream_id:
            with contextlib.suppress(WebSocketException, OSError):
                connection.send(message)


class SocketClient:
    """Streams answers of a vivace server over WebSockets.

    Args:
        base_url: such as "http://127.0.0.1:8000".
        api_key: if the server asks for one.
        retry: how patient it is.
        timeout_s: longest silence on a connection before it is given up for another.
        sleep: how it waits.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.retry = retry or RetryPolicy()
        self.timeout_s = timeout_s
        self.sleep = sleep
        self._url = socket_url(base_url)
        self._headers = headers(api_key)

    def send(self, messages: Sequence[Mapping[str, Any]], **fields: Any) -> SocketAnswer:
        """Ask for the answer to a conversation; it is sent when the answer is read.

        Args:
            messages: the conversation, as the API takes it.
            fields: other fields of the request body.
        """
        return SocketAnswer(self, Dialogue(chat_body(messages, fields), Position()))

    def resume(self, position: Position) -> SocketAnswer:
        """Read a stream on from where it was left, over whatever it was begun."""
        return SocketAnswer(self, Dialogue({}, position))

    def connected(self) -> ClientConnection:
        """A new connection."""
        return connect(
            self._url,
            additional_headers=self._headers,
            open_timeout=self.timeout_s,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        )
