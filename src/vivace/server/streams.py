"""Answers that are read from a numbered log: the first reader, readers that come back, and the verb that stops."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.service import ModelService
from vivace.server.chat_reply import ChatReply
from vivace.server.chat_work import KeptChat, chat_work
from vivace.server.errors import error_body
from vivace.server.event_stream import DONE, EventStream
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel
from vivace.server.requests import StreamOptions
from vivace.server.safety import Safety
from vivace.stream.errors import OffsetLostError
from vivace.stream.flush import flush_policy
from vivace.stream.journal import Journal, NoJournal, RunRecord, SavedRun
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import CANCEL, DisconnectPolicy, RunOptions, parse_disconnect_policy
from vivace.stream.pacing import pace
from vivace.stream.registry import RegistryLimits, StreamRegistry, new_stream_id, owner_of
from vivace.stream.run import StreamRun
from vivace.stream.sqlite_journal import SqliteJournal
from vivace.types.answer import AnswerChunk
from vivace.types.errors import EngineError, RequestError
from vivace.types.request import GenerationRequest

KEEP_ALIVE_S = 15.0
"""After so long without an event a comment is sent, which keeps proxies from closing the connection."""
KEEP_ALIVE = b": still here\n\n"


class CancelledStream(msgspec.Struct):
    """The body of an answer to the stop verb: how far the stream is."""

    id: str
    status: str
    last_event: int


class Streams:
    """All streams of this server: opens them, resumes them, stops them.

    Args:
        model: continues the streams that a restart has found, once it is there.
        safety: what may not leave.
        on_disconnect: what happens to work whose reader has left, unless the request says otherwise.
        limits: how much is kept for how long.
        journal: keeps streams across restarts; None: nothing does.
    """

    def __init__(
        self,
        model: LoadingModel,
        safety: Safety,
        on_disconnect: DisconnectPolicy = CANCEL,
        limits: RegistryLimits | None = None,
        journal: SqliteJournal | None = None,
    ) -> None:
        self._model = model
        self._safety = safety
        self._on_disconnect = on_disconnect
        self._journal: Journal = journal or NoJournal()
        self._registry = StreamRegistry(limits, forget=self._journal.forget)
        self._found = {saved.record.stream_id: saved for saved in (journal.load() if journal else ())}

    def options(self, wire: StreamOptions | None) -> RunOptions:
        """What a request chose about its stream.

        Raises:
            RequestError: a value out of range.
        """
        if wire is None:
            return RunOptions(on_disconnect=self._on_disconnect)
        policy = wire.on_disconnect
        defaults = RunOptions()
        flush_policy(wire.flush or defaults.flush)
        pace(wire.pace or defaults.pace)
        return RunOptions(
            on_disconnect=self._on_disconnect if policy is None else parse_disconnect_policy(policy),
            flush=wire.flush or defaults.flush,
            coalesce=bool(wire.coalesce),
            pace=wire.pace or defaults.pace,
            events=bool(wire.events),
            soft_timeout_s=_seconds("soft_timeout_s", wire.soft_timeout_s, defaults.soft_timeout_s),
            hard_timeout_s=_seconds("hard_timeout_s", wire.hard_timeout_s, defaults.hard_timeout_s),
            deadline_s=_seconds("deadline_s", wire.deadline_s, defaults.deadline_s),
        )

    def open(self, request: Request, service: ModelService, reply: ChatReply, options: RunOptions) -> EventStream:
        """Start an answer and read it from its beginning.

        Raises:
            OverloadedError: too many streams run.
            StorageError: the stream cannot be kept as the operator wants.
        """
        if self._found:
            self._continue_found()
        reply = replace(reply, request=with_seed(reply.request))
        return self._response(self.begin(service, KeptChat(reply, options), _owner(request)), 0)

    def begin(self, service: ModelService, kept: KeptChat, owner: str) -> StreamRun:
        """Start an answer as a stream of its own.

        Raises:
            OverloadedError: too many streams run.
            StorageError: the stream cannot be kept as the operator wants.
        """
        record = RunRecord(new_stream_id(), owner, "chat", msgspec.json.encode(kept))
        log = NumberedLog(self._registry.limits.max_log_bytes)
        work = chat_work(service, self._safety, kept, kept.begun)
        return self._start(StreamRun(record, work, kept.options, log, journal=self._journal, progress=kept.begun))

    async def resume(self, request: Request) -> EventStream:
        """The events of a stream after a number, those to come included.

        Raises:
            UnknownStreamError: no such stream of this caller.
            OffsetLostError: the events are no longer held.
            RequestError: the number is none of this stream.
        """
        run = self._find(request)
        number = _starting_after(request)
        run.log.after(number)  # refused here, while a plain error response can tell it
        return self._response(run, number)

    async def cancel(self, request: Request) -> Response:
        """End the work of a stream; what it has written stays readable. Ending twice is no error.

        Raises:
            UnknownStreamError: no such stream of this caller.
        """
        run = self._find(request)
        run.cancel()
        return json_response(CancelledStream(run.stream_id, run.log.status.value, run.log.last_number))

    def _start(self, run: StreamRun) -> StreamRun:
        self._registry.add(run)
        run.start()
        return run

    def _find(self, request: Request) -> StreamRun:
        stream_id = request.path_params["stream_id"]
        if stream_id in self._found:
            self._continue_found()
        return self._registry.find(stream_id, _owner(request))

    def _continue_found(self) -> None:
        """Take over what a restart has found: ended streams to be read, the others to be brought to their end.

        Happens when the first reader comes back, which is when the event loop runs and the model may be there.

        Raises:
            OverloadedError: the model is still loading.
        """
        service = self._model.service()
        found, self._found = self._found, {}
        for saved in found.values():
            self._take_over(service, saved)

    def _take_over(self, service: ModelService, saved: SavedRun) -> None:
        kept = msgspec.json.decode(saved.record.request, type=KeptChat)
        log = NumberedLog(self._registry.limits.max_log_bytes, saved.events)
        progress = saved.progress or kept.begun
        work = chat_work(service, self._safety, kept, progress)
        if kept.reply.model != service.name:
            work = replace(work, chunks=_refuse(kept.reply.model))
        run = StreamRun(saved.record, work, kept.options, log, journal=self._journal, progress=progress)
        if saved.status is not StreamStatus.RUNNING:
            log.close_replayed(saved.status)
            self._registry.add(run)
            return
        self._start(run)

    def _response(self, run: StreamRun, starting_after: int) -> EventStream:
        return EventStream(self._events(run, starting_after), {"x-stream-id": run.stream_id})

    async def _events(self, run: StreamRun, starting_after: int) -> AsyncGenerator[bytes, None]:
        """A stream as server-sent events. One that failed before it wrote anything raises its error instead."""
        started = False
        pacer = pace(run.options.pace)()
        loop = asyncio.get_running_loop()
        try:
            async with aclosing(run.read(starting_after, KEEP_ALIVE_S)) as events:
                async for event in events:
                    if event is None:
                        payload = KEEP_ALIVE
                    elif event.name and not run.options.events:
                        continue
                    else:
                        payload = server_sent(event)
                        if pacer is not None:
                            backlog_s = run.log.reading_s_after(event.number)
                            await asyncio.sleep(pacer.delay_s(event.reading_s, backlog_s, loop.time()))
                    started = True
                    yield payload
        except OffsetLostError as error:
            if not started:
                raise
            yield b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"
        if run.failure is not None and not started and starting_after == 0:
            self._registry.discard(run.stream_id)
            raise run.failure
        yield DONE


def server_sent(event: LogEvent) -> bytes:
    """One event in the wire format of server-sent events; a payload never holds a raw newline."""
    name = b"event: " + event.name.encode() + b"\n" if event.name else b""
    return b"id: %d\n%bdata: %b\n\n" % (event.number, name, event.payload)


def with_seed(request: GenerationRequest) -> GenerationRequest:
    """The request with its seed fixed, so that the same answer can be had again."""
    if request.sampling.seed is not None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))


async def _refuse(model: str) -> AsyncGenerator[AnswerChunk, None]:
    """The rest of an answer whose model is not served any more."""
    raise EngineError(f"The model {model[:128]!r} is not served any more.", "Send the request again.")
    yield  # makes this a generator


def _owner(request: Request) -> str:
    _, _, key = request.headers.get("authorization", "").partition(" ")
    return owner_of(key.strip())


def _starting_after(request: Request) -> int:
    """The number in `Last-Event-ID`, which a browser sends when it comes back, else the one in the query."""
    given = request.headers.get("last-event-id") or request.query_params.get("starting_after") or "0"
    if not (given.isascii() and given.isdecimal() and len(given) < 19):
        raise RequestError(
            f"{given[:64]!r} is no event number.", "Send the id of the last event received.", param="starting_after"
        )
    return int(given)


def _seconds(name: str, given: float | None, default: float | None) -> float | None:
    if given is None:
        return default
    if not 0 < given <= 86_400:
        raise RequestError(
            f"{name} is {given}.", "Give seconds above 0 and at most 86400.", param=f"stream_options.{name}"
        )
    return given
