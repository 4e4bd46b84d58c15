"""A reply as the work of a stream: where its chunks come from, from its beginning or from where it broke off."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class _Part:
    """One request: its chunks, what ends it early, and whom to tell of its reader."""

    chunks: Chunks
    stop: Callable[[], None]
    note_reader: Callable[[float, bool], None]


def reply_work(service: ModelService, safety: Safety, kept: Kept[Any], progress: Mapping[int, Progress]) -> Work:
    """The answer to a request.

    Args:
        service: the model.
        safety: what may not leave.
        kept: the request.
        progress: what is known of the answer; it is told again, without being computed again.
    """
    requests: Sequence[GenerationRequest] = kept.reply.engine_requests
    generator = Generator(service.stream, service.cancel, _note_reader(service))
    parts = [
        _part(generator, safety, request, _of(progress, place, request.n)) for place, request in enumerate(requests)
    ]

    def stop() -> None:
        for part in parts:
            part.stop()

    def note_reader(lead_s: float, is_all: bool) -> None:
        for part in parts:
            part.note_reader(lead_s, is_all)

    return Work(
        parts[0].chunks if len(parts) == 1 else _together([part.chunks for part in parts], requests[0].n),
        stop,
        kept.reply,
        stages=(*safety.stages(), FlushStage(flush_policy(kept.options.flush), safety.may_end)),
        num_choices=sum(request.n for request in requests),
        num_prompt=sum(len(request.prompt_ids) for request in requests),
        opens_at_once=kept.reply.opens_at_once,
        note_reader=note_reader,
    )


def _note_reader(service: ModelService) -> Callable[[str, float, bool], None]:
    """Whom to tell of readers: nobody, where the order of service does not look at them."""
    if not service.knows_readers:
        return lambda request_id, lead_s, is_all: None
    return lambda request_id, lead_s, is_all: service.note_reader(request_id, lead_s, is_all=is_all)


def _of(progress: Mapping[int, Progress], place: int, n: int) -> dict[int, Progress]:
    """What is known of one request: choice c of request p is choice p * n + c of the reply."""
    return {choice - place * n: known for choice, known in progress.items() if choice // n == place}


def _part(generator: Generator, safety: Safety, request: GenerationRequest, progress: Mapping[int, Progress]) -> _Part:
    if is_plain(progress, request) and not safety.needs_guard:
        name = request.request_id
        return _Part(generator.draw(request), partial(generator.cancel, name), partial(generator.note_reader, name))
    sources = ChoiceSources(request, generator, progress)
    return _Part(safety.chunks(request, sources, progress), sources.stop, sources.note_reader)


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
