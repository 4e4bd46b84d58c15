"""What goes wrong between a reader and a stream."""

from typing import ClassVar

from vivace.types.errors import OverloadedError, RequestError, VivaceError


class UnknownStreamError(RequestError):
    """No such stream, or not this caller's: the two are not told apart, so that ids cannot be probed."""

    code: ClassVar[str] = "stream_not_found"
    http_status: ClassVar[int] = 404


class OffsetLostError(VivaceError):
    """The events that a reader asks for are no longer held; what follows them may be."""

    code: ClassVar[str] = "offset_lost"
    http_status: ClassVar[int] = 410


class StreamMovedError(OverloadedError):
    """The stream goes on on another server, or its store cannot be reached: read on with the last number."""

    code: ClassVar[str] = "stream_moved"
