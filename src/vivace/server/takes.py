"""Verbs that make a new stream of an old one: continue it, regenerate it from a place on, edit it and go on.

The text of a stream only ever grows, so whatever takes text back opens a stream of its own. It begins where the two
part (`X-Stream-Offset`), and neither the prompt nor what stays is computed again while their KV is cached.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec
from starlette.requests import Request

from vivace.engine.admission import check_fits
from vivace.engine.service import ModelService
from vivace.server.caller import owner_in
from vivace.server.chat_reply import ChatReply
from vivace.server.decode import read_body
from vivace.server.errors import HttpError
from vivace.server.event_stream import EventStream
from vivace.server.kinds import decode_kept
from vivace.server.loading import LoadingModel
from vivace.server.reply import Kept
from vivace.server.requests import StreamOptions
from vivace.server.safety import Safety
from vivace.server.streams import Streams
from vivace.stream.checkpoints import Place, SentenceMarks, last_place
from vivace.stream.journal import Progress
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.readable import ReadableStream
from vivace.types.errors import RequestError
from vivace.types.request import Continuation, GenerationRequest


class TakeRequest(msgspec.Struct, kw_only=True):
    """Body of all three verbs. A place is an `offset` in characters, or the name of a `checkpoint`.

    `choice`: of the old stream; the new one has it alone. `max_tokens`: that are added. `echo`: tell what stays, too.
    """

    choice: int | None = None
    offset: int | None = None
    checkpoint: str | None = None
    text: str | None = None
    max_tokens: int | None = None
    echo: bool | None = None
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What an old stream has told of a choice, and where one can go back to."""

    request: GenerationRequest
    progress: Progress
    text: str
    places: tuple[Place, ...]

    def offset_of(self, wire: TakeRequest) -> int:
        """The offset that a request names; the end without one.

        Raises:
            RequestError: there is no such place.
        """
        if wire.checkpoint is not None:
            for mark in SentenceMarks().feed(self.text):
                if mark.name == wire.checkpoint:
                    return mark.offset
            raise RequestError(
                f"There is no checkpoint {wire.checkpoint[:32]!r}.",
                "Use one that a checkpoint event named, such as s1.",
                param="checkpoint",
            )
        offset = len(self.text) if wire.offset is None else wire.offset
        if not 0 <= offset <= len(self.text):
            raise RequestError(
                f"The offset {offset} is not in the text, which has {len(self.text)} characters.",
                "Give characters from the beginning of the answer.",
                param="offset",
            )
        return offset


Take = Callable[[ModelService, Told, TakeRequest], Continuation]


class Takes:
    """The three endpoints.

    Args:
        model: goes on.
        streams: where the old ones are found and the new ones begin.
        safety: what may not leave.
    """

    def __init__(self, model: LoadingModel, streams: Streams, safety: Safety) -> None:
        self._model = model
        self._streams = streams
        self._safety = safety

    async def go_on(self, request: Request) -> EventStream:
        """Continue an answer that was ended before it was complete.

        Raises:
            VivaceError: no such stream, nothing to continue, or no room for more.
        """
        run = self._find(request)
        if run.log.status in (StreamStatus.RUNNING, StreamStatus.COMPLETED):
            raise HttpError(
                409,
                "nothing_to_continue",
                f"The answer is {run.log.status}.",
                "Read it, or regenerate it from a place.",
            )
        return await self._open(request, run, _continued)

    async def regenerate(self, request: Request) -> EventStream:
        """Keep an answer up to a place and draw what follows anew.

        Raises:
            VivaceError: no such stream or place, or no room for more.
        """
        return await self._open(request, self._find(request), _regenerated)

    async def edit(self, request: Request) -> EventStream:
        """Keep an answer up to a place, put a text there, and go on from it.

        Raises:
            VivaceError: no such stream or place, no text, or no room for more.
        """
        return await self._open(request, self._find(request), _edited)

    def _find(self, request: Request) -> ReadableStream:
        return self._streams.find(request.path_params["stream_id"], owner_in(request.headers))

    async def _open(self, request: Request, run: ReadableStream, take: Take) -> EventStream:
        wire = await read_body(request, TakeRequest) if await request.body() else TakeRequest()
        await self._safety.check([wire.text or ""])
        if run.record.kind != "chat":
            raise RequestError("Only streams of chat answers can go on elsewhere.", "Send the request again.")
        kept: Kept[ChatReply] = decode_kept("chat", run.record.request)
        service = self._model.named(kept.reply.model)
        options = kept.options if wire.stream_options is None else self._streams.options(wire.stream_options)
        fresh, begun, offset = await asyncio.to_thread(
            self._prepare, service, kept.reply.request, run.progress, wire, take
        )
        told = {"stream": run.stream_id, "choice": wire.choice or 0, "offset": offset}
        reply = replace(kept.reply, request=fresh, reply_id=f"chatcmpl-{uuid.uuid4().hex}")
        new = self._streams.begin(service, Kept(reply, options, {0: begun}), run.record.owner)
        new.notice("rollback", told)
        run.notice("rollback", {**told, "stream": new.stream_id})
        run.cancel()
        return self._streams.response(new, 0, {"x-stream-offset": str(offset)})

    def _prepare(
        self,
        service: ModelService,
        request: GenerationRequest,
        progress: Mapping[int, Progress],
        wire: TakeRequest,
        take: Take,
    ) -> tuple[GenerationRequest, Progress, int]:
        """The new engine request, what of its answer is not told again, and where the two streams part."""
        choice = wire.choice or 0
        if not 0 <= choice < request.n:
            raise RequestError(f"There is no choice {choice}.", f"Use 0 to {request.n - 1}.", param="choice")
        origin = replace(request, continuation=request.continuation or Continuation(choice=choice))
        old = self._tell(service, origin, progress.get(choice, Progress()))
        more = take(service, old, wire)
        fresh = _fitted(replace(origin, n=1, request_id=uuid.uuid4().hex, continuation=more), request, wire, service)
        told = self._tell(service, fresh, Progress(token_ids=list(more.answer_ids)))
        offset = len(told.text)
        return fresh, Progress(0 if wire.echo else offset, list(more.answer_ids), attempt=more.attempt), offset

    def _tell(self, service: ModelService, request: GenerationRequest, progress: Progress) -> Told:
        """The tokens of a choice as text, through the filter."""
        screen, text, places = self._safety.screen(), "", [Place(0, 0)]
        more = replace(request.continuation or Continuation(), answer_ids=tuple(progress.token_ids))
        for number, (piece, is_settled) in enumerate(service.retell(replace(request, n=1, continuation=more)), 1):
            text += screen.feed(piece)
            if screen.has_stopped:
                break
            if is_settled and not screen.num_held:
                places.append(Place(number, len(text)))
        return Told(request, progress, text, tuple(places))


def _continued(service: ModelService, told: Told, wire: TakeRequest) -> Continuation:
    if told.progress.finish_reason == "content_filter":
        return _regenerated(service, told, wire)
    assert told.request.continuation is not None
    return replace(
        told.request.continuation,
        answer_ids=tuple(told.progress.token_ids),
        attempt=told.progress.attempt,
        banned_first=(),
    )


def _regenerated(service: ModelService, told: Told, wire: TakeRequest) -> Continuation:
    place = last_place(told.places, told.offset_of(wire))
    ids = told.progress.token_ids
    assert told.request.continuation is not None
    return replace(
        told.request.continuation,
        answer_ids=tuple(ids[: place.num_tokens]),
        attempt=told.progress.attempt + 1,
        banned_first=tuple(ids[place.num_tokens : place.num_tokens + 1]),
    )


def _edited(service: ModelService, told: Told, wire: TakeRequest) -> Continuation:
    if not wire.text:
        raise RequestError("The edit has no text.", "Send text, or use regenerate.", param="text")
    offset = told.offset_of(wire)
    place = last_place(told.places, offset)
    added = service.encode(told.text[place.num_chars : offset] + wire.text, add_special=False)
    assert told.request.continuation is not None
    return replace(
        told.request.continuation,
        answer_ids=(*told.progress.token_ids[: place.num_tokens], *added),
        attempt=told.progress.attempt + 1,
        banned_first=(),
    )


def _fitted(
    fresh: GenerationRequest, old: GenerationRequest, wire: TakeRequest, service: ModelService
) -> GenerationRequest:
    """The request with room for what is to be added: as many tokens as asked, else as the old request might have.

    Raises:
        ContextLengthError: the context has no room for them.
        RequestError: no positive number.
    """
    num_prompt, num_kept = len(fresh.prompt_ids), len(fresh.answer_ids)
    check_fits(num_prompt + num_kept, None, service.context_length)
    added = old.stopping.max_tokens if wire.max_tokens is None else wire.max_tokens
    if added is None:
        return fresh
    if added < 1:
        raise RequestError(f"max_tokens is {added}.", "Give at least 1.", param="max_tokens")
    if wire.max_tokens is None:
        added = min(added, service.context_length - num_prompt - num_kept)
    check_fits(num_prompt + num_kept, added, service.context_length)
    return replace(fresh, stopping=replace(fresh.stopping, max_tokens=num_kept + added))
