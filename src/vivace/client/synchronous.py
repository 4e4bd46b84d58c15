"""The client for code without an event loop."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import httpx

from vivace.client.events import Position, ServerEvent
from vivace.client.retry import Backoff, RetryPolicy
from vivace.client.wire import chat_body, headers, next_call, wait_before_retry


class Client:
    """Streams answers of a vivace server.

    Args:
        base_url: such as "http://127.0.0.1:8000".
        api_key: if the server asks for one.
        retry: how patient it is.
        timeout_s: longest silence on a connection; the server gives a sign of life every 15 seconds.
        sleep: how it waits.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout_s: float = 40.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, headers=headers(api_key), timeout=timeout_s)
        self._retry = retry or RetryPolicy()
        self._sleep = sleep

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def text(self, messages: Sequence[Mapping[str, Any]], **fields: Any) -> Generator[str, None, None]:
        """The answer to a conversation, piece by piece; raises as `events`."""
        for event in self.events(messages, **fields):
            if event.text:
                yield event.text

    def events(
        self, messages: Sequence[Mapping[str, Any]], position: Position | None = None, **fields: Any
    ) -> Generator[ServerEvent, None, None]:
        """Every event of the answer, once, in order, however often the connection breaks.

        Args:
            messages: the conversation, as the API takes it.
            position: where to begin; a fresh one asks, one that has a stream_id resumes. It moves with the stream.
            fields: other fields of the request body.

        Raises:
            StreamBrokenError: the server refused or failed, or the connection did not come back.
        """
        position = position if position is not None else Position()
        body, backoff = chat_body(messages, fields), Backoff(self._retry)
        while not position.is_done:
            try:
                call = next_call(position, body)
                with self._http.stream(call.method, call.path, json=call.body, headers=call.headers) as response:
                    if response.status_code != 200:
                        wait_s = wait_before_retry(backoff, response, response.read())
                    else:
                        position.connect(response.headers.get("x-stream-id"))
                        for line in response.iter_lines():
                            event = position.read(line)
                            if event is not None:
                                backoff.note_progress()
                                yield event
                        wait_s = 0.0 if position.is_done else wait_before_retry(backoff, None)
            except httpx.TransportError as error:
                wait_s = wait_before_retry(backoff, error)
            if not position.is_done:
                self._sleep(wait_s)

    def stop(self, stream_id: str) -> None:
        """End the work of a stream; its text so far stays readable.

        Raises:
            StreamBrokenError: the server refused, or could not be reached.
        """
        backoff = Backoff(self._retry)
        while True:
            try:
                response = self._http.delete(f"/v1/streams/{stream_id}")
                if response.status_code == 200:
                    return
                wait_s = wait_before_retry(backoff, response, response.content)
            except httpx.TransportError as error:
                wait_s = wait_before_retry(backoff, error)
            self._sleep(wait_s)
