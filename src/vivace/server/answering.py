"""Runs the engine requests behind one HTTP request: usually one, several when a completion has several prompts."""

import asyncio
from collections.abc import Sequence

from vivace.engine.service import ModelService
from vivace.types.answer import Answer, Usage
from vivace.types.request import GenerationRequest
from vivace.types.speculation import together


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


async def _end(tasks: Sequence["asyncio.Future[Answer]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def total_usage(usages: Sequence[Usage]) -> Usage:
    """Token counts of several requests together."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        speculation=together(usage.speculation for usage in usages),
    )
