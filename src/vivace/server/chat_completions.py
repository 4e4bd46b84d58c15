"""POST /v1/chat/completions: a conversation in, the next turn out, whole or streamed."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.admission import REQUEST_RULES, STOP_RULES
from vivace.engine.service import ModelService
from vivace.server.answering import complete_all
from vivace.server.convert import chat_messages, check_model, parameters, wants_usage
from vivace.server.decode import read_body
from vivace.server.disconnect import while_connected
from vivace.server.errors import error_body
from vivace.server.event_stream import EventStream
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel
from vivace.server.logprobs import chat_logprobs
from vivace.server.outcome import wire_finish, wire_usage
from vivace.server.requests import ChatCompletionRequest
from vivace.server.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Delta,
    WireUsage,
)
from vivace.server.safety import Safety
from vivace.server.streams import Streams
from vivace.types.answer import Answer, AnswerChunk, TextLogprob, Usage
from vivace.types.errors import RequestError, VivaceError
from vivace.types.request import GenerationRequest


class ChatCompletions:
    """The chat endpoint over one model."""

    def __init__(self, model: LoadingModel, streams: Streams, safety: Safety) -> None:
        self._model = model
        self._streams = streams
        self._safety = safety

    async def answer(self, request: Request) -> Response | EventStream:
        """Answer one HTTP request.

        Raises:
            VivaceError: the body is wrong, the model cannot take it, or the engine failed.
        """
        wire = await read_body(request, ChatCompletionRequest)
        service = self._model.service()
        check_model(wire.model, service.name)
        include_usage = wants_usage(wire)
        options = self._streams.options(wire.stream_options)
        admitted = await asyncio.to_thread(_admit, service, wire)
        self._safety.check([message.content for message in chat_messages(wire.messages)], admitted.logprobs)
        reply = _Reply(service.name, admitted, include_usage)
        if wire.stream:
            return self._streams.open(request, service, admitted, reply, options)
        answers = await while_connected(request.receive, complete_all(service, [admitted]))
        return json_response(reply.whole(self._safety.screened(answers[0])))


def _admit(service: ModelService, wire: ChatCompletionRequest) -> GenerationRequest:
    """Check the request and turn the conversation into tokens (slow for long ones: not on the event loop)."""
    given = parameters(wire)
    given["max_tokens"] = _max_tokens(wire)
    given["logprobs"] = _logprobs(wire)
    messages = chat_messages(wire.messages)
    try:
        return service.admit(service.encode_chat(messages), given, chat=True)
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


@dataclass(frozen=True, slots=True)
class _Reply:
    """Writes the answer to one request; the fields are what all its JSON objects share."""

    model: str
    request: GenerationRequest
    include_usage: bool
    reply_id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> ChatCompletion:
        """The body of a reply that is not streamed."""
        return ChatCompletion(
            id=self.reply_id,
            created=self.created,
            model=self.model,
            choices=[
                ChatChoice(
                    index=index,
                    message=AssistantMessage(content=choice.text),
                    finish_reason=wire_finish(choice.finish_reason),
                    logprobs=self._logprobs(choice.logprobs),
                )
                for index, choice in enumerate(answer.choices)
            ],
            usage=wire_usage(answer.usage),
        )

    def opening(self) -> Iterator[bytes]:
        """The role of each choice."""
        for index in range(self.request.n):
            yield self._event(ChatChunkChoice(index, Delta(role="assistant", content="")))

    def piece(self, chunk: AnswerChunk) -> Iterator[bytes]:
        """What is added to a choice, and how it ended."""
        logprobs = self._logprobs(chunk.logprobs) if chunk.logprobs else None
        if chunk.text or logprobs:
            yield self._event(ChatChunkChoice(chunk.choice, Delta(content=chunk.text), logprobs))
        if chunk.finish_reason is not None:
            # An answer that its own reader stopped has ended as wanted, and that API has no other word for it.
            reason = "stop" if chunk.finish_reason == "cancelled" else chunk.finish_reason
            yield self._event(ChatChunkChoice(chunk.choice, Delta(), finish_reason=wire_finish(reason)))

    def closing(self, usage: Usage | None) -> Iterable[bytes]:
        """The usage, if it was asked for."""
        if self.include_usage and usage is not None:
            return (self._chunk([], wire_usage(usage)),)
        return ()

    def failure(self, error: VivaceError) -> bytes:
        """An error object."""
        return msgspec.json.encode(error_body(error))

    def _logprobs(self, tokens: Sequence[TextLogprob]) -> ChatLogprobs | None:
        return None if self.request.logprobs is None else chat_logprobs(tokens)

    def _event(self, choice: ChatChunkChoice) -> bytes:
        return self._chunk([choice], None if self.include_usage else UNSET)

    def _chunk(self, choices: list[ChatChunkChoice], usage: WireUsage | UnsetType | None) -> bytes:
        return msgspec.json.encode(
            ChatChunk(id=self.reply_id, created=self.created, model=self.model, choices=choices, usage=usage)
        )
