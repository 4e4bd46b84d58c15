"""What both clients say to the server: which request opens, resumes or stops a stream, and what an answer means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from vivace.client.events import Position, StreamBrokenError, error_of
from vivace.client.retry import RETRIED_STATUSES, Backoff

KEEP_S = 60.0
"""How long the server goes on without us, unless the caller says otherwise: time for a network to come back."""


@dataclass(frozen=True, slots=True)
class Call:
    """Method, path, body and headers of one HTTP request."""

    method: str
    path: str
    body: dict[str, Any] | None
    headers: dict[str, str]


def headers(api_key: str | None) -> dict[str, str]:
    """Headers of every request."""
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def chat_body(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat request that is streamed and kept while we are away."""
    options = {"on_disconnect": KEEP_S, **(fields.get("stream_options") or {})}
    return {**fields, "messages": [dict(message) for message in messages], "stream": True, "stream_options": options}


def next_call(position: Position, body: dict[str, Any]) -> Call:
    """What to ask for: the answer, or the rest of it."""
    if not position.stream_id:
        return Call("POST", "/v1/chat/completions", body, {})
    return Call("GET", f"/v1/streams/{position.stream_id}", None, {"last-event-id": str(position.last_number)})


def wait_before_retry(backoff: Backoff, failure: httpx.Response | Exception | None, body: bytes = b"") -> float:
    """Seconds until the next try.

    Args:
        backoff: of this stream.
        failure: an answer that is no success, what the network raised, or None: the stream was cut.
        body: of the answer.

    Raises:
        StreamBrokenError: trying again would not help, or has been tried enough.
    """
    at_least_s = 0.0
    if isinstance(failure, httpx.Response):
        if failure.status_code not in RETRIED_STATUSES:
            raise error_of(failure.status_code, body)
        given = failure.headers.get("retry-after", "")
        at_least_s = float(given) if given.isdecimal() else 0.0
    wait_s = backoff.next_wait_s(at_least_s)
    if wait_s is not None:
        return wait_s
    if isinstance(failure, httpx.Response):
        raise error_of(failure.status_code, body)
    raise StreamBrokenError(f"The connection was lost: {failure or 'it was cut'}.", "Try again later.")
