"""POST /v1/completions: text or token ids in, the continuation out, whole or streamed, for several prompts at once."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.service import ModelService
from vivace.server.answering import complete_all, stream_all, total_usage
from vivace.server.convert import check_model, parameters, wants_usage
from vivace.server.decode import read_body
from vivace.server.disconnect import while_connected
from vivace.server.event_stream import EventStream, event, with_ending
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel
from vivace.server.logprobs import completion_logprobs
from vivace.server.outcome import wire_finish, wire_usage
from vivace.server.requests import CompletionRequest
from vivace.server.responses import Completion, CompletionChoice, CompletionLogprobs, WireUsage
from vivace.server.safety import Safety
from vivace.types.answer import Answer, AnswerChunk, TextLogprob, Usage
from vivace.types.errors import RequestError
from vivace.types.request import GenerationRequest

DEFAULT_MAX_TOKENS = 16
"""As in the OpenAI API: a raw continuation need not end on its own."""


class Completions:
    """The completions endpoint over one model."""

    def __init__(self, model: LoadingModel, safety: Safety, *, max_prompts: int) -> None:
        self._model = model
        self._safety = safety
        self._max_prompts = max_prompts

    async def answer(self, request: Request) -> Response | EventStream:
        """Answer one HTTP request.

        Raises:
            VivaceError: the body is wrong, the model cannot take it, or the engine failed.
        """
        wire = await read_body(request, CompletionRequest)
        service = self._model.service()
        check_model(wire.model, service.name)
        include_usage = wants_usage(wire)
        prompts = _prompts(wire.prompt, self._max_prompts)
        if wire.echo and wire.logprobs is not None:
            raise RequestError(
                "echo with logprobs is not supported: prompt tokens have none here.", "Leave one out.", param="echo"
            )
        self._safety.check([prompt for prompt in prompts if isinstance(prompt, str)], wire.logprobs)
        requests, echoes = await asyncio.to_thread(_admit, service, wire, prompts)
        reply = _Reply(service.name, requests, echoes, include_usage)
        if wire.stream:
            pairs = self._safety.screened_stream(stream_all(service, requests))
            return EventStream(with_ending(reply.events(pairs)))
        answers = await while_connected(request.receive, complete_all(service, requests))
        return json_response(reply.whole([self._safety.screened(answer) for answer in answers]))


def _prompts(prompt: str | list[str | int | list[int]], max_prompts: int) -> list[str | list[int]]:
    """The prompts of a request: text, token ids, or a list of either.

    Raises:
        RequestError: an empty list, a mixed one, or too many prompts.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise RequestError("The prompt is an empty list.", "Send text, or a list that is not empty.", param="prompt")
    ids = [entry for entry in prompt if isinstance(entry, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise RequestError("The prompt mixes token ids and text.", "Send one or the other.", param="prompt")
    if len(prompt) > max_prompts:
        raise RequestError(
            f"The request has {len(prompt)} prompts; at most {max_prompts} are taken.", "Split it.", param="prompt"
        )
    return [entry for entry in prompt if not isinstance(entry, int)]


def _admit(
    service: ModelService, wire: CompletionRequest, prompts: Sequence[str | list[int]]
) -> tuple[list[GenerationRequest], list[str]]:
    """Check the request and turn its prompts into tokens; the second list is what each answer echoes."""
    given = parameters(wire) | {"logprobs": wire.logprobs}
    given.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    requests, echoes = [], []
    for prompt in prompts:
        ids = service.encode(prompt) if isinstance(prompt, str) else prompt
        requests.append(service.admit(ids, given))
        echoed = prompt if isinstance(prompt, str) else service.tokenizer.decode(ids)
        echoes.append(echoed if wire.echo else "")
    return requests, echoes


@dataclass(frozen=True, slots=True)
class _Reply:
    """Writes the answers to one HTTP request. Answer c of prompt p has index p * n + c, as in the OpenAI API."""

    model: str
    requests: list[GenerationRequest]
    echoes: list[str]
    include_usage: bool
    reply_id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

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

    async def events(self, pairs: AsyncGenerator[tuple[int, AnswerChunk], None]) -> AsyncGenerator[bytes, None]:
        """The events of a streamed reply: the echoes, what is added to each choice, how it ended, the usage."""
        usages: list[Usage] = []
        offsets = [0] * (self._n * len(self.requests))
        started = False
        async with aclosing(pairs) as chunks:
            async for prompt, chunk in chunks:
                if not started:
                    started = True
                    for choice in self._echo_choices():
                        yield self._event(choice)
                if chunk.usage is not None:
                    usages.append(chunk.usage)
                index = prompt * self._n + chunk.choice
                for choice in self._pieces(index, chunk, offsets[index]):
                    yield self._event(choice)
                offsets[index] += sum(len(token.text) for token in chunk.logprobs)
        if self.include_usage:
            yield event(self._body([], wire_usage(total_usage(usages))))

    @property
    def _n(self) -> int:
        return self.requests[0].n

    def _echo_choices(self) -> Iterator[CompletionChoice]:
        for prompt, echo in enumerate(self.echoes):
            for index in range(self._n if echo else 0):
                yield CompletionChoice(prompt * self._n + index, echo)

    def _pieces(self, index: int, chunk: AnswerChunk, offset: int) -> Iterator[CompletionChoice]:
        logprobs = self._logprobs(chunk.logprobs, offset) if chunk.logprobs else None
        if chunk.text or logprobs:
            yield CompletionChoice(index, chunk.text, logprobs)
        if chunk.finish_reason is not None:
            yield CompletionChoice(index, "", finish_reason=wire_finish(chunk.finish_reason))

    def _logprobs(self, tokens: Sequence[TextLogprob], offset: int) -> CompletionLogprobs | None:
        count = self.requests[0].logprobs
        return None if count is None else completion_logprobs(tokens, offset=offset, with_top=count > 0)

    def _event(self, choice: CompletionChoice) -> bytes:
        return event(self._body([choice], None if self.include_usage else UNSET))

    def _body(self, choices: list[CompletionChoice], usage: WireUsage | UnsetType | None) -> Completion:
        return Completion(id=self.reply_id, created=self.created, model=self.model, choices=choices, usage=usage)
