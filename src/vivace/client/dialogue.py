"""What is said over a WebSocket about one answer, and what follows from what is heard. No network here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vivace.client.events import Position, ServerEvent, StreamBrokenError, broken

RETRIED_CODES = frozenset({"overloaded", "too_many_requests", "stream_moved"})
"""Errors of the server that go away by themselves."""
TAG = "answer"
"""The connection is this answer's alone, so its name is always the same."""


class TryAgainError(Exception):
    """The server cannot do it now; the error it would be otherwise is the cause."""


@dataclass(slots=True)
class Dialogue:
    """One answer over any number of connections, one after the other.

    Args:
        body: of the chat request; not used when `position` has a stream already.
        position: where to begin; it moves with the stream.
    """

    body: Mapping[str, Any]
    position: Position
    is_stop_wanted: bool = False
    wanted_pace: dict[str, Any] = field(default_factory=dict)

    def opening(self) -> str:
        """What is said first on a new connection: the question, or where to read on."""
        position = self.position
        if not position.stream_id:
            return _message("send", body=self.body)
        return _message("resume", stream_id=position.stream_id, starting_after=position.last_number)

    def wishes(self) -> list[str]:
        """What was wanted before this connection, to be said again on it once the answer is open."""
        said = [_message("pace", **self.wanted_pace)] if self.wanted_pace else []
        return [*said, *([_message("stop")] if self.is_stop_wanted else [])]

    def stop(self) -> str:
        """End the work."""
        self.is_stop_wanted = True
        return _message("stop")

    def pace(self, name: str | None, speed: float | None) -> str:
        """Have text shown at another pace."""
        self.wanted_pace = _given(pace=name, speed=speed)
        return _message("pace", **self.wanted_pace)

    def acknowledge(self, number: int | None, **report: Any) -> str:
        """Tell how the reader is doing."""
        return _message("ack", **_given(number=number, **report))

    def take(self, text: str | bytes) -> tuple[ServerEvent | None, bool]:
        """What a message of the server brings: an event, and whether the answer has just been opened.

        Raises:
            StreamBrokenError: the server refused, or the work failed.
            TryAgainError: it may work a little later.
        """
        heard = msgspec.json.decode(text, type=dict[str, Any])
        kind = heard.get("type")
        if kind == "stream":
            self.position.connect(heard["stream_id"])
            return None, True
        if kind == "done":
            self.position.is_done = True
        elif kind == "error":
            self._refuse(broken(0, heard))
        elif kind == "event":
            return self._event(heard), False
        elif kind == "network":
            return ServerEvent(0, "network", {name: heard[name] for name in ("quality", "send_every_s")}), False
        return None, False

    def _event(self, heard: Mapping[str, Any]) -> ServerEvent | None:
        number, name, data = int(heard["number"]), str(heard["name"]), heard["data"]
        if number <= self.position.last_number:
            return None
        self.position.last_number = number
        if "error" in data and not name:
            raise broken(0, data)
        return ServerEvent(number, name, data)

    def _refuse(self, error: StreamBrokenError) -> None:
        if self.is_stop_wanted and self.position.stream_id and not error.error_code.startswith("stream_"):
            return  # what was stopped had ended already
        if error.error_code in RETRIED_CODES:
            raise TryAgainError from error
        raise error


def socket_url(base_url: str) -> str:
    """The address of the WebSocket of a server."""
    return base_url.rstrip("/").replace("http", "ws", 1) + "/v1/ws"


def _message(kind: str, **fields: Any) -> str:
    return msgspec.json.encode({"type": kind, "id": TAG, **fields}).decode()


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
