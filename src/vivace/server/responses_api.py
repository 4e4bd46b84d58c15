"""/v1/responses: the Responses API over the same numbered logs. A response's id is the name of its stream."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.admission import REQUEST_RULES, STOP_RULES
from vivace.engine.service import ModelService
from vivace.server.caller import owner_in
from vivace.server.convert import chat_messages, check_model, parameters, wants_usage
from vivace.server.decode import read_body
from vivace.server.disconnect import while_connected
from vivace.server.errors import HttpError
from vivace.server.event_stream import EventStream
from vivace.server.json_response import json_response
from vivace.server.load_control import LoadControl
from vivace.server.loading import LoadingModel
from vivace.server.response_reply import ResponseReply
from vivace.server.response_types import LOGPROBS, DeletedResponse, ResponseRequest, ResponseSettings, TextFormat
from vivace.server.safety import Safety
from vivace.server.stream_endpoints import event_number
from vivace.server.streams import Streams
from vivace.server.structure import of_text_format
from vivace.stream.errors import UnknownStreamError
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.readable import ReadableStream
from vivace.stream.registry import new_stream_id
from vivace.types.errors import RequestError
from vivace.types.request import ChatMessage, GenerationRequest

RETAIN_S = 3600.0
"""A stored response can be read, and gone on from, for so long after its end."""
STOP_WITHIN_S = 10.0
"""An answer that was told to end has ended by then, or is told of as it is."""
_LONG_CHAT = {None: None, "auto": "truncate", "disabled": "reject"}


class ResponsesApi:
    """The Responses API over one model."""

    def __init__(self, model: LoadingModel, streams: Streams, safety: Safety, load: LoadControl) -> None:
        self._load = load
        self._model = model
        self._streams = streams
        self._safety = safety

    async def create(self, request: Request) -> Response | EventStream:
        """Answer one HTTP request: whole, streamed, or at once with the rest to be fetched.

        Raises:
            VivaceError: the body is wrong, the model cannot take it, or the engine failed.
        """
        wire = await read_body(request, ResponseRequest)
        check_model(wire.model, self._model.service().name)
        wants_usage(wire)
        options = self._options(wire)
        owner = owner_in(request.headers)
        said = [*self._earlier(wire.previous_response_id, owner), *_input(wire)]
        service, admitted = await self._load.admit(lambda service: _admit(service, wire, said), wire)
        admitted = self._load.eased(admitted, service)
        await self._safety.check([message.content for message in said], admitted.logprobs)
        reply = ResponseReply(admitted, _settings(service, wire, admitted), said, new_stream_id("resp_"))
        run = self._streams.start(owner, service, reply, options, reply.response_id)
        if wire.stream:
            return self._streams.response(run, 0)
        if not wire.background:
            await while_connected(request.receive, _read_all(run))
            if run.failure is not None:
                self._streams.discard(run)
                raise run.failure
        return _body(run)

    async def get(self, request: Request) -> Response | EventStream:
        """A response as it is now, or with `stream=true` its events after `starting_after`.

        Raises:
            VivaceError: no such response of this caller, or its events are no longer held.
        """
        run = self._find(request)
        if request.query_params.get("stream", "false").lower() != "true":
            return _body(run)
        number = _log_number(request)
        run.log.after(number)  # refused here, while a plain error response can tell it
        return self._streams.response(run, number)

    async def cancel(self, request: Request) -> Response:
        """End a response; what there is of it stays readable. Ending twice is no error."""
        run = self._find(request)
        await _stop(run)
        return _body(run)

    async def delete(self, request: Request) -> Response:
        """End a response and forget it."""
        run = self._find(request)
        await _stop(run)
        self._streams.discard(run)
        return json_response(DeletedResponse(id=run.stream_id))

    def _options(self, wire: ResponseRequest) -> RunOptions:
        options = self._streams.options(wire.stream_options)
        if wire.background:
            options = replace(options, on_disconnect=KEEP)
        return options if wire.store is False else replace(options, retain_s=RETAIN_S)

    def _find(self, request: Request) -> ReadableStream:
        response_id = request.path_params["response_id"]
        run = self._streams.find(response_id, owner_in(request.headers))
        if not isinstance(run.writer, ResponseReply):
            raise UnknownStreamError(f"There is no response {response_id[:64]!r}.", "Its name begins with resp_.")
        return run

    def _earlier(self, response_id: str | None, owner: str) -> list[ChatMessage]:
        """The conversation that a response ended, its answer included.

        Raises:
            HttpError: it is not there, or has not ended.
        """
        if response_id is None:
            return []
        try:
            run = self._streams.find(response_id, owner)
        except UnknownStreamError:
            run = None
        reply = None if run is None else run.writer
        if run is None or not isinstance(reply, ResponseReply) or not reply.settings.store:
            raise HttpError(
                400,
                "previous_response_not_found",
                f"There is no response {response_id[:64]!r}, or no longer.",
                "Send the whole conversation as input.",
            )
        if not run.log.has_ended:
            raise RequestError("That response is still being written.", "Wait for its end, or cancel it.")
        return [*reply.conversation, ChatMessage("assistant", reply.state.text)]


def _input(wire: ResponseRequest) -> list[ChatMessage]:
    if isinstance(wire.input, str):
        return [ChatMessage("user", wire.input)]
    for position, item in enumerate(wire.input):
        if item.type != "message":
            raise RequestError(
                f"Input items of type {item.type[:64]!r} are not supported.",
                "Send messages with text.",
                param=f"input[{position}].type",
            )
    return chat_messages(wire.input, "input")


def _admit(service: ModelService, wire: ResponseRequest, said: list[ChatMessage]) -> GenerationRequest:
    """Check the request and turn the conversation into tokens."""
    for name, instead in (("max_tokens", "max_output_tokens"), ("n", "several requests")):
        if getattr(wire, name) is not None:
            raise RequestError(f"{name} is no field of this endpoint.", f"Use {instead}.", param=name)
    if wire.truncation not in _LONG_CHAT:
        raise RequestError(f"truncation is {wire.truncation!r}.", "Use auto or disabled.", param="truncation")
    given = parameters(wire)
    if wire.max_output_tokens is not None:
        STOP_RULES["max_tokens"]("max_output_tokens", wire.max_output_tokens)
        given["max_tokens"] = wire.max_output_tokens
    given |= _structure(wire, given)
    given["logprobs"] = _logprobs(wire)
    given["long_chat"] = given.get("long_chat") or _LONG_CHAT[wire.truncation]
    instructions = [] if wire.instructions is None else [ChatMessage("system", wire.instructions)]
    try:
        return service.admit_chat([*instructions, *said], given)
    except RequestError as error:
        if error.param == "prompt":
            error.param = "input"
        raise


def _structure(wire: ResponseRequest, given: Mapping[str, object]) -> dict[str, object]:
    """The structure that `text` asks for."""
    if wire.text is None:
        return {}
    if wire.text.verbosity not in (None, "medium"):
        raise RequestError(
            "Verbosity is not supported.", "Leave it out and say in the input how long to be.", param="text.verbosity"
        )
    wanted = None if wire.text.format is None else of_text_format(wire.text.format, "text.format")
    if wanted is None:
        return {}
    if "structured_outputs" in given:
        raise RequestError("text.format is not the only structure asked for.", "Send one of them.", param="text.format")
    return {"structured_outputs": wanted}


def _text_settings(wire: ResponseRequest) -> dict[str, dict[str, object]]:
    """The field `text` as the response tells it back."""
    wanted = TextFormat() if wire.text is None or wire.text.format is None else wire.text.format
    return {"format": {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}}


def _logprobs(wire: ResponseRequest) -> int | None:
    unknown = [name for name in wire.include or () if name != LOGPROBS]
    if unknown:
        raise RequestError(f"{unknown[0][:64]!r} cannot be included.", f"Use {LOGPROBS!r}.", param="include")
    if wire.top_logprobs is not None:
        REQUEST_RULES["logprobs"]("top_logprobs", wire.top_logprobs)
    return (wire.top_logprobs or 0) if wire.include else (wire.top_logprobs or None)


def _settings(service: ModelService, wire: ResponseRequest, admitted: GenerationRequest) -> ResponseSettings:
    return ResponseSettings(
        model=service.name,
        instructions=wire.instructions,
        previous_response_id=wire.previous_response_id,
        background=bool(wire.background),
        store=wire.store is not False,
        temperature=admitted.sampling.temperature,
        top_p=admitted.sampling.top_p,
        top_logprobs=wire.top_logprobs or 0,
        max_output_tokens=wire.max_output_tokens,
        truncation=wire.truncation or "disabled",
        text=_text_settings(wire),
        metadata=wire.metadata or {},
    )


def _log_number(request: Request) -> int:
    """The log counts from 1 and `sequence_number` from 0."""
    last_id = request.headers.get("last-event-id")
    if last_id:
        return event_number(last_id)
    given = request.query_params.get("starting_after")
    return event_number(given) + 1 if given else 0


async def _read_all(run: ReadableStream) -> None:
    async for _ in run.read():
        pass


async def _stop(run: ReadableStream) -> None:
    run.cancel()
    await asyncio.wait((asyncio.ensure_future(run.join()),), timeout=STOP_WITHIN_S)


def _body(run: ReadableStream) -> Response:
    assert isinstance(run.writer, ResponseReply)  # callers see to it
    return json_response(run.writer.body(run.log.status), headers={"x-stream-id": run.stream_id})
