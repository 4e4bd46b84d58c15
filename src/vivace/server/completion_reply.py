"""Writes the answers to one completion request, whole or piece by piece; several prompts share one stream."""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from vivace.server.answering import total_usage
from vivace.server.errors import error_body
from vivace.server.logprobs import completion_logprobs
from vivace.server.outcome import stream_finish, wire_finish, wire_usage
from vivace.server.reply import with_seed
from vivace.server.responses import Completion, CompletionChoice, CompletionLogprobs, WireUsage
from vivace.stream.journal import SavedRun
from vivace.types.answer import Answer, AnswerChunk, TextLogprob, Usage
from vivace.types.errors import VivaceError
from vivace.types.request import GenerationRequest


@dataclass(slots=True)
class CompletionReply:
    """Answer c of prompt p has index p * n + c, as in the OpenAI API. `offsets` are characters written, by index."""

    model: str
    requests: list[GenerationRequest]
    echoes: list[str]
    include_usage: bool
    reply_id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    offsets: dict[int, int] = field(default_factory=dict)

    @property
    def engine_requests(self) -> Sequence[GenerationRequest]:
        """One for each prompt."""
        return self.requests

    @property
    def opens_at_once(self) -> bool:
        """Nothing is written before the first piece."""
        return False

    def seeded(self) -> Self:
        """See Reply."""
        return replace(self, requests=[with_seed(request) for request in self.requests])

    def restore(self, saved: SavedRun) -> None:
        """Go on counting characters where the log ends."""
        self.offsets = {index: progress.num_chars for index, progress in saved.progress.items()}

    def whole(self, answers: Sequence[Answer]) -> Completion:
        """The body of a reply that is not streamed."""
        choices = [
            CompletionChoice(
                index=prompt * self._n + index,
                text=self.echoes[prompt] + choice.text,
                logprobs=self._logprobs(choice.logprobs, offset=0),
                finish_reason=wire_finish(choice.finish_reason),
            )
            for prompt, answer in enumerate(answers)
            for index, choice in enumerate(answer.choices)
        ]
        return self._body(choices, wire_usage(total_usage([answer.usage for answer in answers])))

    def opening(self) -> Iterator[bytes]:
        """The echo of each prompt, where it was asked for."""
        for prompt, echo in enumerate(self.echoes):
            for index in range(self._n if echo else 0):
                yield self._event(CompletionChoice(prompt * self._n + index, echo))

    def piece(self, chunk: AnswerChunk) -> Iterator[bytes]:
        """What is added to a choice, and how it ended."""
        offset = self.offsets.get(chunk.choice, 0)
        logprobs = self._logprobs(chunk.logprobs, offset) if chunk.logprobs else None
        self.offsets[chunk.choice] = offset + sum(len(token.text) for token in chunk.logprobs)
        if chunk.text or logprobs:
            yield self._event(CompletionChoice(chunk.choice, chunk.text, logprobs))
        if chunk.finish_reason is not None:
            yield self._event(CompletionChoice(chunk.choice, "", finish_reason=stream_finish(chunk.finish_reason)))

    def closing(self, usage: Usage | None) -> Iterable[bytes]:
        """The usage, if it was asked for."""
        if self.include_usage and usage is not None:
            return (msgspec.json.encode(self._body([], wire_usage(usage))),)
        return ()

    def failure(self, error: VivaceError) -> bytes:
        """An error object."""
        return msgspec.json.encode(error_body(error))

    @property
    def _n(self) -> int:
        return self.requests[0].n

    def _logprobs(self, tokens: Sequence[TextLogprob], offset: int) -> CompletionLogprobs | None:
        count = self.requests[0].logprobs
        return None if count is None else completion_logprobs(tokens, offset=offset, with_top=count > 0)

    def _event(self, choice: CompletionChoice) -> bytes:
        return msgspec.json.encode(self._body([choice], None if self.include_usage else UNSET))

    def _body(self, choices: list[CompletionChoice], usage: WireUsage | UnsetType | None) -> Completion:
        return Completion(id=self.reply_id, created=self.created, model=self.model, choices=choices, usage=usage)
