"""/v1/streams/{id}: read a stream again or further, stop it, and tell how its reader is doing."""

from starlette.requests import Request
from starlette.responses import Response

from vivace.server.caller import owner_in
from vivace.server.decode import read_body
from vivace.server.event_stream import EventStream
from vivace.server.json_response import json_response
from vivace.server.requests import ReportRequest
from vivace.server.responses import StreamState
from vivace.server.streams import Streams
from vivace.stream.readable import ReadableStream
from vivace.stream.reader import ReaderReport
from vivace.types.errors import RequestError


class StreamEndpoints:
    """The endpoints of one server's streams."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def resume(self, request: Request) -> EventStream:
        """The events of a stream after a number, those to come included.

        Raises:
            UnknownStreamError: no such stream of this caller.
            OffsetLostError: the events are no longer held.
            RequestError: the number is none of this stream.
        """
        run = self._find(request)
        number = event_number(request.headers.get("last-event-id") or request.query_params.get("starting_after"))
        run.log.after(number)  # refused here, while a plain error response can tell it
        return self._streams.response(run, number)

    async def cancel(self, request: Request) -> Response:
        """End the work of a stream; what it has written stays readable. Ending twice is no error.

        Raises:
            UnknownStreamError: no such stream of this caller.
        """
        run = self._find(request)
        run.cancel()
        return json_response(_state(run))

    async def acknowledge(self, request: Request) -> Response:
        """Take what the reader of a stream tells about itself.

        Raises:
            UnknownStreamError: no such stream of this caller.
            RequestError: a value out of range.
        """
        wire = await read_body(request, ReportRequest)
        run = self._find(request)
        self._streams.report(run, reader_report(wire, run.log.last_number))
        if wire.pace is not None or wire.speed is not None:
            for reader in self._streams.readers(run):
                reader.set_pace(wire.pace or "reader", reader_speed(wire.speed))
        return json_response(_state(run))

    def _find(self, request: Request) -> ReadableStream:
        return self._streams.find(request.path_params["stream_id"], owner_in(request.headers))


def event_number(given: str | None) -> int:
    """The number of an event as a client sends it; none is 0.

    Raises:
        RequestError: it is no number.
    """
    given = given or "0"
    if not (given.isascii() and given.isdecimal() and len(given) < 19):
        raise RequestError(
            f"{given[:64]!r} is no event number.", "Send the id of the last event received.", param="starting_after"
        )
    return int(given)


def reader_report(wire: ReportRequest, last_number: int) -> ReaderReport:
    """A checked report.

    Raises:
        RequestError: a value out of range.
    """
    number = wire.number
    if number is not None and not 0 <= number <= last_number:
        raise RequestError(
            f"The stream has events 1 to {last_number}, and {number} is not one of them.",
            "Send the number of the last event that was read.",
            param="number",
        )
    for name, value in (("buffer_s", wire.buffer_s), ("rtt_s", wire.rtt_s), ("stalls", wire.stalls)):
        if value is not None and not 0 <= value <= 86_400:
            raise RequestError(f"{name} is {value}.", "Give a number from 0 to 86400.", param=name)
    if wire.buffer_utilisation is not None and not 0 <= wire.buffer_utilisation <= 1:
        raise RequestError(
            f"buffer_utilisation is {wire.buffer_utilisation}.", "Give 0 to 1.", param="buffer_utilisation"
        )
    return ReaderReport(number, wire.buffer_s, wire.rtt_s, wire.stalls or 0, wire.buffer_utilisation)


def reader_speed(given: float | None) -> float | None:
    """A checked reading speed.

    Raises:
        RequestError: it is out of range.
    """
    if given is not None and not 0.1 <= given <= 100:
        raise RequestError(f"speed is {given}.", "Give 0.1 to 100; 1 is usual.", param="speed")
    return given


def _state(run: ReadableStream) -> StreamState:
    return StreamState(run.stream_id, run.log.status.value, run.log.last_number)
