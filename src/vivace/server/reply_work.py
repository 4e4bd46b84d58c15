"""A reply as the work of a stream: where its chunks come from, from its beginning or from where it broke off."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from vivace.engine.service import ModelService
from vivace.server.answering import total_usage
from vivace.server.reply import Kept
from vivace.server.safety import Safety
from vivace.stream.flush import FlushStage, flush_policy
from vivace.stream.journal import Progress
from vivace.stream.source import ChoiceSources, Generator, is_plain, merged
from vivace.stream.work import Notice, Work
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.request import GenerationRequest

Chunks = AsyncGenerator[AnswerChunk | Notice, None]


def reply_work(service: ModelService, safety: Safety, kept: Kept[Any], progress: Mapping[int, Progress]) -> Work:
    """The answer to a request.

    Args:
        service: the model.
        safety: what may not leave.
        kept: the request.
        progress: what is known of the answer; it is told again, without being computed again.
    """
    requests: Sequence[GenerationRequest] = kept.reply.engine_requests
    generator = Generator(service.stream, service.cancel)
    parts = [
        _part(generator, safety, request, _of(progress, place, request.n)) for place, request in enumerate(requests)
    ]

    def stop() -> None:
        for _, stop_part in parts:
            stop_part()

    return Work(
        parts[0][0] if len(parts) == 1 else _together([chunks for chunks, _ in parts], requests[0].n),
        stop,
        kept.reply,
        stages=(*safety.stages(), FlushStage(flush_policy(kept.options.flush), safety.may_end)),
        num_choices=sum(request.n for request in requests),
        num_prompt=sum(len(request.prompt_ids) for request in requests),
        opens_at_once=kept.reply.opens_at_once,
    )


def _of(progress: Mapping[int, Progress], place: int, n: int) -> dict[int, Progress]:
    """What is known of one request: choice c of request p is choice p * n + c of the reply."""
    return {choice - place * n: known for choice, known in progress.items() if choice // n == place}


def _part(
    generator: Generator, safety: Safety, request: GenerationRequest, progress: Mapping[int, Progress]
) -> tuple[Chunks, Callable[[], None]]:
    """The chunks of one request, and what ends it early."""
    if is_plain(progress, request) and not safety.needs_guard:
        return generator.draw(request), partial(generator.cancel, request.request_id)
    sources = ChoiceSources(request, generator, progress)
    return safety.chunks(request, sources, progress), sources.stop


async def _numbered(place: int, n: int, chunks: Chunks) -> Chunks:
    async with aclosing(chunks):
        async for item in chunks:
            yield replace(item, choice=place * n + item.choice) if isinstance(item, AnswerChunk) else item


async def _together(parts: Sequence[Chunks], n: int) -> Chunks:
    """Chunks of all requests as they come, as those of one: the last has the usage of all."""
    usages: list[Usage] = []
    async with aclosing(merged([_numbered(place, n, chunks) for place, chunks in enumerate(parts)])) as items:
        async for item in items:
            if isinstance(item, AnswerChunk) and item.usage is not None:
                usages.append(item.usage)
                yield replace(item, usage=total_usage(usages) if len(usages) == len(parts) else None)
            else:
                yield item
