"""POST /v1/chat/completions: a conversation in, the next turn out, whole or streamed."""

from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.admission import REQUEST_RULES, STOP_RULES
from vivace.engine.service import ModelService
from vivace.server.chat_reply import ChatReply
from vivace.server.convert import chat_messages, check_model, parameters, wants_usage
from vivace.server.decode import decode_body, name_tenant, read_body
from vivace.server.disconnect import while_connected
from vivace.server.event_stream import EventStream
from vivace.server.json_response import json_response
from vivace.server.load_control import LoadControl
from vivace.server.loading import LoadingModel
from vivace.server.outcome import dropped_header
from vivace.server.requests import ChatCompletionRequest
from vivace.server.safety import Safety
from vivace.server.streams import Streams
from vivace.stream.options import RunOptions
from vivace.types.errors import RequestError
from vivace.types.request import GenerationRequest


class ChatCompletions:
    """The chat endpoint over one model."""

    def __init__(self, model: LoadingModel, streams: Streams, safety: Safety, load: LoadControl) -> None:
        self._load = load
        self._model = model
        self._streams = streams
        self._safety = safety

    async def answer(self, request: Request) -> Response | EventStream:
        """Answer one HTTP request.

        Raises:
            VivaceError: the body is wrong, the model cannot take it, or the engine failed.
        """
        wire = await read_body(request, ChatCompletionRequest)
        service, reply, options = await self._prepare(wire)
        if wire.stream:
            return self._streams.open(request, service, reply, options)
        answers = await while_connected(request.receive, self._safety.complete_all(service, [reply.request]))
        return json_response(reply.whole(answers[0]), headers=dropped_header([reply.request]))

    async def prepare_streamed(self, body: bytes, owner: str) -> tuple[ModelService, ChatReply, RunOptions]:
        """A request of a caller from elsewhere than HTTP, checked, to be streamed whatever it says about that.

        Raises:
            VivaceError: the body is wrong, or the model cannot take it.
        """
        wire = decode_body(body, ChatCompletionRequest)
        name_tenant(wire, owner)
        wire.stream = True
        return await self._prepare(wire)

    async def _prepare(self, wire: ChatCompletionRequest) -> tuple[ModelService, ChatReply, RunOptions]:
        check_model(wire.model, self._model.service().name)
        include_usage = wants_usage(wire)
        options = self._streams.options(wire.stream_options)
        service, admitted = await self._load.admit(lambda service: _admit(service, wire), wire)
        admitted = self._load.eased(admitted, service)
        await self._safety.check([message.content for message in chat_messages(wire.messages)], admitted.logprobs)
        return service, ChatReply(service.name, admitted, include_usage), options


def _admit(service: ModelService, wire: ChatCompletionRequest) -> GenerationRequest:
    """Check the request and turn the conversation into tokens (slow for long ones: not on the event loop)."""
    given = parameters(wire)
    given["max_tokens"] = _max_tokens(wire)
    given["logprobs"] = _logprobs(wire)
    messages = chat_messages(wire.messages)
    try:
        return service.admit_chat(messages, given)
    except RequestError as error:
        if error.param == "prompt":
            error.param = "messages"  # the field of this API that the prompt was made from
        raise


def _max_tokens(wire: ChatCompletionRequest) -> int | None:
    newer, older = wire.max_completion_tokens, wire.max_tokens
    if newer is None:
        return older
    if older not in (None, newer):
        raise RequestError(
            "max_tokens and max_completion_tokens differ.", "Send only one of them.", param="max_completion_tokens"
        )
    STOP_RULES["max_tokens"]("max_completion_tokens", newer)
    return newer


def _logprobs(wire: ChatCompletionRequest) -> int | None:
    if wire.top_logprobs is not None:
        REQUEST_RULES["logprobs"]("top_logprobs", wire.top_logprobs)
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise RequestError("top_logprobs needs logprobs.", 'Send "logprobs": true as well.', param="top_logprobs")
    return None
