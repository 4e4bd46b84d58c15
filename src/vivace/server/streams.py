"""All streams of a server: starts them, finds them, and takes up those that a restart has found."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from starlette.requests import HTTPConnection

from vivace.engine.service import ModelService
from vivace.server.caller import owner_in
from vivace.server.event_stream import EventStream, sse_events
from vivace.server.kinds import decode_kept, encode_kept, kind_of
from vivace.server.loading import LoadingModel, ModelState
from vivace.server.outcome import dropped_header
from vivace.server.progress import tell_progress
from vivace.server.reply import Kept, Reply
from vivace.server.reply_work import reply_work
from vivace.server.requests import StreamOptions
from vivace.server.run_options import run_options
from vivace.server.safety import Safety
from vivace.server.shared_streams import SharedStreams
from vivace.stream.diagnostics import StreamDiagnostics
from vivace.stream.errors import UnknownStreamError
from vivace.stream.journal import Journal, NoJournal, Progress, RunRecord, SavedRun, StreamStore
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.meter import StreamMeter
from vivace.stream.network import NetworkConfig
from vivace.stream.options import DEFAULTS, RunOptions
from vivace.stream.readable import ReadableStream
from vivace.stream.reader import ReaderReport, StreamReader
from vivace.stream.registry import RegistryLimits, StreamRegistry, new_stream_id
from vivace.stream.run import StreamRun
from vivace.stream.shared_store import IN_MEMORY, SharedStore
from vivace.types.answer import AnswerChunk
from vivace.types.errors import EngineError, VivaceError

KEEP_ALIVE_S = 15.0
"""After so long without an event a sign of life is sent, which keeps proxies from closing the connection."""


LOOK_S = 0.25
"""Time between two looks at how much waits for each reader."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams of a server behave.

    Args:
        defaults: what a stream does unless its request says otherwise.
        limits: how much is kept for how long.
        store: keeps streams across restarts, or for several servers; None: nothing does.
        lease_s: of streams in a shared store.
        network: when a reader's network is poor, and what is done then.
        meter: counts what happens; None: nobody does.
        log_share: share of the streams that diagnostics tell of, once they are on.
    """

    defaults: RunOptions = DEFAULTS
    limits: RegistryLimits | None = None
    store: StreamStore | None = None
    lease_s: float = IN_MEMORY.lease_s
    network: NetworkConfig = field(default_factory=NetworkConfig)
    meter: StreamMeter | None = None
    log_share: float = 1.0


class Streams:
    """All streams of one server.

    Args:
        model: continues the streams that a restart has found, once it is there.
        safety: what may not leave.
        settings: how they behave.
        greeting: what a new stream tells in its event `degraded`; None: it has none.
    """

    def __init__(
        self,
        model: LoadingModel,
        safety: Safety,
        settings: StreamSettings | None = None,
        greeting: Callable[[], dict[str, object] | None] = lambda: None,
    ) -> None:
        self._greeting = greeting
        self._model = model
        self._safety = safety
        self._settings = settings or StreamSettings()
        store = self._settings.store
        journal: Journal = store or NoJournal()
        self._journal = journal
        self._registry = StreamRegistry(self._settings.limits, forget=journal.forget, release=journal.release)
        self._readers: defaultdict[str, set[StreamReader]] = defaultdict(set)
        self._found = {saved.record.stream_id: saved for saved in (store.load() if store else ())}
        self._shared = self._share(store) if isinstance(store, SharedStore) else None

    async def serve(self) -> None:
        """What goes on beside the requests, until it is cancelled: looks at readers, heartbeats of shared streams."""
        works = [self._look_at_readers()]
        if self._shared is not None:
            works.append(self._shared.beat_for_ever())
        await asyncio.gather(*works)

    async def _look_at_readers(self) -> None:
        """Tell the engine how much waits for the readers of each stream, where its order of service wants to know."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._model.state is ModelState.READY and any(each.knows_readers for each in self._model.services()):
                now_s = asyncio.get_running_loop().time()
                for run in self._registry.running():
                    run.tell_lead(now_s)

    def options(self, wire: StreamOptions | None) -> RunOptions:
        """What a request chose about its stream.

        Raises:
            RequestError: a value out of range.
        """
        return run_options(wire, self._settings.defaults)

    def start(
        self, owner: str, service: ModelService, reply: Reply, options: RunOptions, stream_id: str | None = None
    ) -> StreamRun:
        """Start an answer; raises as `begin`."""
        if self._found:
            self._continue_found()
        return self.begin(service, Kept(reply.seeded(), options), owner, stream_id)

    def begin(self, service: ModelService, kept: Kept[Any], owner: str, stream_id: str | None = None) -> StreamRun:
        """Start an answer as a stream of its own.

        Raises:
            OverloadedError: too many streams run.
            StorageError: the stream cannot be kept as the operator wants.
        """
        kind = kind_of(kept.reply).name
        request = encode_kept(kept)
        record = RunRecord(stream_id or new_stream_id(), owner, kind, request, kept.options.retain_s)
        run = self._start(self._run(service, record, kept, kept.begun, ()))
        if (told := self._greeting()) is not None:
            run.notice("degraded", told)
        if kept.options.events:
            telling = tell_progress(service, run, kept.reply.engine_requests[0].request_id)
            run.accompany(telling)
        return run

    def open(self, request: HTTPConnection, service: ModelService, reply: Reply, options: RunOptions) -> EventStream:
        """Start an answer and read it from its beginning; raises as `start`."""
        run = self.start(owner_in(request.headers), service, reply, options)
        return self.response(run, 0, dropped_header(reply.engine_requests))

    def tell_all(self, name: str, told: dict[str, object]) -> None:
        """Write an event into every stream that is at work here, for readers that asked for such events."""
        for run in list(self._registry.running()):
            run.notice(name, told)

    def find(self, stream_id: str, owner: str) -> ReadableStream:
        """A stream of this caller.

        Raises:
            UnknownStreamError: there is none of that name, or it is somebody else's.
            OverloadedError: it is from before a restart, and the model is still loading.
        """
        if stream_id in self._found:
            self._continue_found()
        try:
            return self._registry.find(stream_id, owner)
        except UnknownStreamError:
            if self._shared is None:
                raise
        return self._shared.find(stream_id, owner)

    def discard(self, run: ReadableStream) -> None:
        """Forget a stream, wherever it was at work."""
        self._registry.discard(run.stream_id)
        if self._shared is not None:
            self._journal.forget(run.stream_id)

    def response(
        self, run: ReadableStream, starting_after: int, headers: Mapping[str, str] | None = None
    ) -> EventStream:
        """The events of a stream after a number, as server-sent events."""
        told = {"x-stream-id": run.stream_id, **(headers or {})}
        return EventStream(partial(sse_events, self, run, starting_after, KEEP_ALIVE_S), told)

    @property
    def network(self) -> NetworkConfig:
        """When a reader's network is poor."""
        return self._settings.network

    @contextmanager
    def reader(
        self, run: ReadableStream, starting_after: int, idle_s: float | None
    ) -> Generator[StreamReader, None, None]:
        """A reader that hears what is reported about the stream as long as it reads."""
        reader, readers = StreamReader(run, starting_after, idle_s), self._readers[run.stream_id]
        readers.add(reader)
        try:
            yield reader
        finally:
            readers.discard(reader)
            if not readers:
                self._readers.pop(run.stream_id, None)

    def readers(self, run: ReadableStream) -> Sequence[StreamReader]:
        """Who reads a stream now."""
        return tuple(self._readers.get(run.stream_id, ()))

    def report(self, run: ReadableStream, report: ReaderReport) -> None:
        """Take a report that does not say which reader of the stream it is of: all of them."""
        run.note_report(report, asyncio.get_running_loop().time())
        for reader in self.readers(run):
            reader.rtt_s = reader.rtt_s if report.rtt_s is None else report.rtt_s
            reader.note(ReaderReport(report.number))

    def _run(
        self,
        service: ModelService,
        record: RunRecord,
        kept: Kept[Any],
        progress: Mapping[int, Progress],
        events: Iterable[LogEvent],
    ) -> StreamRun:
        work = reply_work(service, self._safety, kept, progress)
        if kept.reply.model != service.name:
            work = replace(work, chunks=_refuse(kept.reply.model))
        return StreamRun(
            record,
            work,
            kept.options,
            NumberedLog(self._registry.limits.max_log_bytes, events),
            journal=self._journal,
            progress=progress,
            diagnostics=self._diagnostics(record.stream_id),
        )

    def _diagnostics(self, stream_id: str) -> StreamDiagnostics:
        return StreamDiagnostics(stream_id, self._settings.log_share, meter=self._settings.meter)

    def _share(self, store: SharedStore) -> SharedStreams:
        return SharedStreams(
            store,
            self._registry,
            self._settings.lease_s,
            served=self._served,
            take_over=self._take_over,
            diagnostics=self._diagnostics,
        )

    def _start(self, run: StreamRun) -> StreamRun:
        self._registry.add(run)
        try:
            run.start()
        except VivaceError:
            self._registry.discard(run.stream_id)
            raise
        return run

    def _continue_found(self) -> None:
        """Take over what a restart has found: ended streams to be read, the others to be brought to their end.

        Happens when the first reader comes back, which is when the event loop runs and the model may be there.

        Raises:
            OverloadedError: the model is still loading.
        """
        self._model.service()
        found, self._found = self._found, {}
        for saved in found.values():
            self._take_over(saved)

    def _served(self) -> frozenset[str]:
        """Names of the models that answer."""
        is_ready = self._model.state is ModelState.READY
        return frozenset(service.name for service in self._model.services()) if is_ready else frozenset()

    def _take_over(self, saved: SavedRun) -> StreamRun:
        kept = decode_kept(saved.record.kind, saved.record.request)
        service = self._model.named(kept.reply.model)
        kept.reply.restore(saved)
        run = self._run(service, saved.record, kept, saved.progress or kept.begun, saved.events)
        if saved.status is not StreamStatus.RUNNING:
            run.log.close_replayed(saved.status)
            self._registry.add(run)
            return run
        return self._start(run)


async def _refuse(model: str) -> AsyncGenerator[AnswerChunk, None]:
    """The rest of an answer whose model is not served any more."""
    raise EngineError(f"The model {model[:128]!r} is not served any more.", "Send the request again.")
    yield  # makes this a generator
