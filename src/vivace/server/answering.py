"""Runs the engine requests behind one HTTP request: usually one, several when a completion has several prompts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from vivace.engine.service import ModelService
from vivace.types.answer import Answer, AnswerChunk, Usage
from vivace.types.request import GenerationRequest

_BUFFERED_CHUNKS = 64
"""Chunks of all prompts together that wait for the client before the readers of the engine pause."""


async def complete_all(service: ModelService, requests: Sequence[GenerationRequest]) -> list[Answer]:
    """All answers, in the order of the requests. When one fails or the caller is cancelled, all end.

    Raises:
        VivaceError: what the first failing request raised.
    """
    tasks = [asyncio.ensure_future(service.acomplete(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for request in requests:
            service.cancel(request.request_id)
        await _end(tasks)


async def stream_all(
    service: ModelService, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, AnswerChunk], None]:
    """Chunks of all requests as they come, each with the position of its request. Closing it ends all of them.

    Raises:
        VivaceError: what the first failing request raised.
    """
    try:
        if len(requests) == 1:
            async with aclosing(service.stream(requests[0])) as chunks:
                async for chunk in chunks:
                    yield 0, chunk
        else:
            async with aclosing(_merge(service, requests)) as merged:
                async for pair in merged:
                    yield pair
    finally:
        for request in requests:
            service.cancel(request.request_id)


async def _merge(
    service: ModelService, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, AnswerChunk], None]:
    queue: asyncio.Queue[tuple[int, AnswerChunk] | None] = asyncio.Queue(_BUFFERED_CHUNKS)

    async def read(position: int, request: GenerationRequest) -> None:
        try:
            async with aclosing(service.stream(request)) as chunks:
                async for chunk in chunks:
                    await queue.put((position, chunk))
        finally:
            await queue.put(None)

    tasks = [asyncio.ensure_future(read(position, request)) for position, request in enumerate(requests)]
    try:
        ended = 0
        while ended < len(tasks):
            pair = await queue.get()
            if pair is not None:
                yield pair
                continue
            ended += 1
            for task in tasks:
                if task.done():
                    task.result()
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Sequence["asyncio.Future[Answer]"] | Sequence["asyncio.Future[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def total_usage(usages: Sequence[Usage]) -> Usage:
    """Token counts of several requests together."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )
