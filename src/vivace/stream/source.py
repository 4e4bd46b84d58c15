"""Where the chunks of an answer come from: engine requests, one after another when the answer is taken back.

A rollback ends the engine request of a choice and starts another that begins with the tokens that stay, so that its KV
is found where it was. Owns which request is at work. Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from vivace.stream.journal import Progress
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.request import Continuation, GenerationRequest
from vivace.types.speculation import together

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Generator:
    """The engine, as a stream sees it.

    Args:
        draw: the chunks of a request; those of the tokens that its continuation begins with come first.
        cancel: ends a request early, by id.
        note_reader: takes how many seconds of text wait for the reader of a request, and whether that is all.
    """

    draw: Callable[[GenerationRequest], AsyncGenerator[AnswerChunk, None]]
    cancel: Callable[[str], None]
    note_reader: Callable[[str, float, bool], None] = lambda request_id, lead_s, is_all: None


class ChoiceSource:
    """The chunks of one choice.

    Args:
        request: as it was asked, with all of its choices.
        choice: which of them.
        generator: draws it.
        kept: what is known of it from before a restart.
    """

    def __init__(
        self, request: GenerationRequest, choice: int, generator: Generator, kept: Progress | None = None
    ) -> None:
        first = request.continuation or Continuation(choice=choice)
        if kept is not None and (len(kept.token_ids), kept.attempt) != (len(first.answer_ids), first.attempt):
            first = Continuation(tuple(kept.token_ids), first.choice, kept.attempt)
        self.choice = choice
        self.token_ids: list[int] = []
        self._generator = generator
        self._request_id = request.request_id if request.n == 1 else f"{request.request_id}-{choice}"
        self._continuation = first
        self._request = replace(request, n=1, request_id=self._request_id, continuation=first)
        self._is_taken_back = False
        self._has_stopped = False

    @property
    def attempt(self) -> int:
        """How often the answer was taken back."""
        return self._continuation.attempt

    async def chunks(self) -> AsyncGenerator[AnswerChunk, None]:
        """Its chunks; after a rollback those that follow the tokens that stayed."""
        num_told = 0
        while True:
            if self._has_stopped:
                usage = Usage(len(self._request.prompt_ids), len(self.token_ids))
                yield AnswerChunk(self.choice, "", finish_reason="cancelled", usage=usage)
                return
            async with aclosing(self._generator.draw(self._request)) as chunks:
                async for chunk in chunks:
                    if self._has_stopped:  # perhaps before the engine had heard of the request
                        self._generator.cancel(self._request.request_id)
                    if num_told >= len(chunk.token_ids) > 0:  # told before the rollback
                        num_told -= len(chunk.token_ids)
                        continue
                    self.token_ids += chunk.token_ids
                    yield replace(chunk, choice=self.choice, attempt=self.attempt)
                    if self._is_taken_back:
                        break
            if not self._is_taken_back:
                return
            self._is_taken_back = False
            num_told = len(self.token_ids)

    def take_back(self, num_tokens: int, banned: Sequence[int] = ()) -> None:
        """Keep so many tokens and draw on from them anew; to be called between two chunks.

        Args:
            num_tokens: that stay.
            banned: tokens that may not follow them at once.
        """
        del self.token_ids[num_tokens:]
        before = self._continuation
        self._continuation = Continuation(tuple(self.token_ids), before.choice, before.attempt + 1, tuple(banned))
        self._request = replace(
            self._request,
            request_id=f"{self._request_id}-{self._continuation.attempt}",
            continuation=self._continuation,
        )
        self._is_taken_back = True

    def note_reader(self, lead_s: float, is_all: bool) -> None:
        """So many seconds of text wait for the reader."""
        self._generator.note_reader(self._request.request_id, lead_s, is_all)

    def stop(self) -> None:
        """End the choice early; its closing chunk still comes."""
        self._has_stopped = True
        self._generator.cancel(self._request.request_id)


class ChoiceSources:
    """One source for each choice of a request that is not done.

    Args:
        request: with its seed fixed.
        generator: draws it.
        kept: what is known from before a restart, by choice.
    """

    def __init__(
        self, request: GenerationRequest, generator: Generator, kept: Mapping[int, Progress] | None = None
    ) -> None:
        kept = kept or {}
        self._done = {choice: known for choice, known in kept.items() if known.finish_reason is not None}
        self._num_prompt = len(request.prompt_ids)
        self.sources = [
            ChoiceSource(request, choice, generator, kept.get(choice))
            for choice in range(request.n)
            if choice not in self._done
        ]

    def note_reader(self, lead_s: float, is_all: bool) -> None:
        """So many seconds of text wait for the reader."""
        for source in self.sources:
            source.note_reader(lead_s, is_all)

    def stop(self) -> None:
        """End all choices early."""
        for source in self.sources:
            source.stop()

    async def joined(self, streams: Sequence[AsyncGenerator[ItemT, None]]) -> AsyncGenerator[ItemT | AnswerChunk, None]:
        """Items of all choices as they come, with one usage for all of them on the last chunk.

        Args:
            streams: for each source what its chunks became on their way.
        """
        num_completion = sum(len(known.token_ids) for known in self._done.values())
        num_open, usages = len(self.sources), list[Usage]()
        async with aclosing(merged(streams)) as items:
            async for item in items:
                if not isinstance(item, AnswerChunk) or item.usage is None:
                    yield item
                    continue
                num_open -= 1
                usages.append(item.usage)
                yield replace(item, usage=None if num_open else _total(usages, num_completion))
        if not self.sources:
            usage = Usage(self._num_prompt, num_completion)
            last = max(self._done, default=0)
            yield AnswerChunk(last, "", finish_reason=self._done[last].finish_reason, usage=usage)


def _total(usages: Sequence[Usage], num_completion: int) -> Usage:
    completion = num_completion + sum(usage.completion_tokens for usage in usages)
    speculation = together(usage.speculation for usage in usages)
    return replace(usages[0], completion_tokens=completion, speculation=speculation)


async def merged(streams: Sequence[AsyncGenerator[ItemT, None]]) -> AsyncGenerator[ItemT, None]:
    """Items of several streams as they come. Closing it closes them all.

    Raises:
        Exception: what the first failing one raised.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    waiting = {asyncio.ensure_future(_next(stream)): stream for stream in streams}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = waiting.pop(task)
                arrived = task.result()
                if arrived is not None:
                    yield arrived
                    waiting[asyncio.ensure_future(_next(stream))] = stream
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def _next(stream: AsyncGenerator[ItemT, None]) -> ItemT | None:
    return await anext(stream, None)


def is_plain(kept: Mapping[int, Progress] | None, request: GenerationRequest) -> bool:
    """Whether one engine request can give all choices: nothing of them is known yet."""
    return not kept and request.continuation is None
