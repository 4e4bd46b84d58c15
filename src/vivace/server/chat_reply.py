"""Writes the answer to one chat request: whole, or piece by piece. Its fields are all that a restart needs to go on."""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from vivace.server.errors import error_body
from vivace.server.logprobs import chat_logprobs
from vivace.server.outcome import stream_finish, wire_finish, wire_usage
from vivace.server.reply import with_seed
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
from vivace.stream.journal import SavedRun
from vivace.types.answer import Answer, AnswerChunk, TextLogprob, Usage
from vivace.types.errors import VivaceError
from vivace.types.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class ChatReply:
    """Writes the answer to one request; the fields are what all its JSON objects share."""

    model: str
    request: GenerationRequest
    include_usage: bool
    reply_id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def engine_requests(self) -> Sequence[GenerationRequest]:
        """The one request."""
        return (self.request,)

    @property
    def opens_at_once(self) -> bool:
        """Nothing is written before the first piece."""
        return False

    def seeded(self) -> Self:
        """See Reply."""
        return replace(self, request=with_seed(self.request))

    def restore(self, saved: SavedRun) -> None:
        """Nothing to take up: a chunk knows no other."""

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
            finish = stream_finish(chunk.finish_reason)
            yield self._event(ChatChunkChoice(chunk.choice, Delta(), finish_reason=finish))

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
