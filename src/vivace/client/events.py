"""Server-sent events read line by line, and how far a stream has been read. No network here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from vivace.types.errors import VivaceError


class StreamBrokenError(VivaceError):
    """The server refused, the stream failed, or no connection could be had any more.

    Args:
        status: HTTP status, 0 where there was no answer.
        error_code: the `code` of the server's error object.
    """

    code: ClassVar[str] = "stream_broken"

    def __init__(self, what: str, mend: str = "", *, status: int = 0, error_code: str = "") -> None:
        super().__init__(what, mend)
        self.status = status
        self.error_code = error_code


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `name` is "" for a chunk of the answer; `data` is its JSON object."""

    number: int
    name: str
    data: dict[str, Any]

    @property
    def text(self) -> str:
        """What the event adds to the first choice."""
        choices = self.data.get("choices") if not self.name else None
        first = [choice for choice in choices or () if choice.get("index") == 0]
        return "".join(choice["delta"].get("content") or "" for choice in first)


@dataclass(slots=True)
class Position:
    """Where a reader is in a stream; fed with the lines of one connection after the other.

    An event counts once its blank line has come, so one that a cut has torn is asked for again.
    """

    stream_id: str = ""
    last_number: int = 0
    is_done: bool = False
    _fields: dict[str, str] = field(default_factory=dict)

    def connect(self, stream_id: str | None) -> None:
        """A connection has begun."""
        self.stream_id = stream_id or self.stream_id
        self._fields = {}

    def read(self, line: str) -> ServerEvent | None:
        """Take one line, without its end; the event that it completes, unless that one was there before.

        Raises:
            StreamBrokenError: the server tells in band that the work has failed.
        """
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        if fields["data"] == "[DONE]":
            self.is_done = True
            return None
        number = int(fields.get("id", "0"))
        if number and number <= self.last_number:
            return None
        self.last_number = number or self.last_number
        data = msgspec.json.decode(fields["data"], type=dict[str, Any])
        if "error" in data and not fields.get("event"):
            raise broken(0, data)
        return ServerEvent(number, fields.get("event", ""), data)


def broken(status: int, body: Mapping[str, Any]) -> StreamBrokenError:
    """The error for an error object of the server."""
    error = body.get("error")
    told = error if isinstance(error, dict) else {}
    message = str(told.get("message") or f"The server answered {status}.")
    return StreamBrokenError(message, status=status, error_code=str(told.get("code") or ""))


def error_of(status: int, body: bytes) -> StreamBrokenError:
    """The error for a response that is no success."""
    try:
        return broken(status, msgspec.json.decode(body, type=dict[str, Any]))
    except msgspec.MsgspecError:
        return broken(status, {})
