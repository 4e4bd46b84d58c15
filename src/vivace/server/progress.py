"""Tells the readers of a stream what happens before its first token: its place in the queue, how far its prompt is."""

import asyncio

from vivace.engine.service import ModelService
from vivace.stream.run import StreamRun
from vivace.types.place import RequestPlace

LOOK_S = 0.2
"""Time between two looks at the engine."""


async def tell_progress(service: ModelService, run: StreamRun, request_id: str) -> None:
    """Write `queued` and `prefill` events, each when something has changed, until the first token comes."""
    told: tuple[str, object] | None = None
    while not _has_token(run):
        place = await service.place(request_id)
        if place is not None and not _has_token(run):  # it may have come meanwhile
            name, key, payload = _event(place)
            if told != (name, key):
                told = (name, key)
                run.notice(name, payload)
        await asyncio.sleep(LOOK_S)


def _has_token(run: StreamRun) -> bool:
    return run.log.has_ended or any(known.token_ids for known in run.progress.values())


def _event(place: RequestPlace) -> tuple[str, int, dict[str, object]]:
    """Name, what has to change for it to be told again, and payload."""
    if place.position:
        wait_s = None if place.expected_wait_s is None else round(place.expected_wait_s, 1)
        return "queued", place.position, {"position": place.position, "expected_wait_s": wait_s}
    figures = {"prompt_tokens": place.num_prompt, "computed_tokens": place.num_computed}
    return "prefill", place.num_computed, dict(figures)
