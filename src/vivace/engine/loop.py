"""One thread that owns the engine. Everybody else talks to it through an inbox and hears from it through sinks.

Two queues join the engine with the rest of the process, and this file holds the first: `submit` and `cancel` put
messages into the inbox from any thread. The second is whatever a sink feeds. Nothing else in the engine knows threads.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from vivace.engine.core import Engine
from vivace.engine.stats import EngineStats
from vivace.telemetry.timeline import StageTimeline
from vivace.types.errors import EngineError, OverloadedError, VivaceError
from vivace.types.events import EngineEvent, FailEvent, TokenEvent
from vivace.types.request import GenerationRequest

logger = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")
Sink = Callable[[Sequence[EngineEvent]], None]


class EngineLoop:
    """Runs an engine in a thread of its own from construction to `close`; idle, the thread sleeps.

    Args:
        engine: handed over: nobody else may touch it, and `close` closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._entrance = threading.Lock()  # so that nothing enters the inbox after the message that closes it
        self._is_closed = False
        self._has_left = False
        self._uses_rest = True
        self._broken_by: VivaceError | None = None
        self._sinks: dict[str, Sink] = {}
        self._untold: Sequence[EngineEvent] = ()
        self._thread = threading.Thread(target=self._run, name="vivace-engine", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether requests can be answered: open, not broken, and steps do not keep failing."""
        return not self._is_closed and self._broken_by is None and self._engine.healthy

    def submit(self, request: GenerationRequest, sink: Sink, timeline: StageTimeline | None = None) -> None:
        """Hand in a request; returns at once.

        Args:
            request: with an id that no request in work has.
            sink: called on the engine thread with this request's events of a step, in order. It must be quick and must
                not raise; one that raises is never called again and its request is cancelled.
            timeline: in its stage "queued"; see `Engine.add`.

        Raises:
            OverloadedError: the loop is closed.
        """
        with self._entrance:
            if self._is_closed:
                raise OverloadedError("The engine is closed.", "Ask a server that is running.")
            self._post(partial(self._add, request, sink, timeline))

    def cancel(self, request_id: str, choice: int | None = None) -> None:
        """End a request, or one choice of it; returns at once. Nothing happens to one that has ended."""
        with self._entrance:
            if not self._is_closed:
                self._post(partial(self._cancel, request_id, choice))

    def set_background(self, is_on: bool) -> None:
        """Whether moments without work are used to bring back blocks that may be needed."""
        self._uses_rest = is_on

    def set_speculation(self, is_on: bool) -> None:
        """Whether drafts are made from the next step on. Returns at once."""
        with self._entrance:
            if not self._is_closed:
                self._post(partial(self._engine.scheduler.set_speculation, is_on))

    @property
    def knows_readers(self) -> bool:
        """Whether it is of use to tell how much waits for a reader."""
        return self._engine.scheduler.order.knows_readers

    def note_reader(self, request_id: str, lead_s: float, *, is_all: bool) -> None:
        """Text of so many seconds waits for the reader of a request; `is_all`: nothing else does. Returns at once."""
        with self._entrance:
            if not self._is_closed:
                note = self._engine.scheduler.note_reader
                self._post(partial(note, request_id, lead_s, is_all=is_all))

    def ask(self, question: Callable[[Engine], AnswerT]) -> "Future[AnswerT]":
        """Have something done with the engine between two steps, on its thread; returns at once.

        Raises:
            OverloadedError: the loop is closed.
        """
        answer: Future[AnswerT] = Future()
        with self._entrance:
            if self._is_closed:
                raise OverloadedError("The engine is closed.", "Ask a server that is running.")
            self._post(partial(self._answer, question, answer))
        return answer

    def stats(self) -> EngineStats:
        """The numbers of this moment."""
        return self._engine.stats()

    def close(self) -> None:
        """Fail what is in work, end the thread and free the executor; may be called twice."""
        with self._entrance:
            if not self._is_closed:
                self._is_closed = True
                self._post(self._leave)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _post(self, message: Callable[[], None]) -> None:
        """Put a message into the inbox; the engine begins no step by itself before it is taken."""
        self._inbox.put(message)
        self._engine.hold()

    # The engine thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._has_left:
            try:
                self._take_messages()
                if self._engine.has_work and self._broken_by is None and not self._has_left:
                    self._untold = self._engine.step(self._tell_last, self._inbox.empty)
            except Exception as error:
                logger.exception("the engine broke")
                self._break(error)
        self._tell_last()
        self._fail_everyone(OverloadedError("The engine was closed before the answer was complete."))
        self._engine.close()

    def _take_messages(self) -> None:
        """Handle all messages that are there; sleep until there is one when there is no other work.

        What the last step brought is told first, unless the next step begins at once: then it is told while that one
        is computed. While a step is under way that began by itself, messages wait for its end.
        """
        if self._engine.is_ahead and self._broken_by is None:
            return
        if not self._inbox.empty() or not self._engine.has_work:
            self._tell_last()
        if not self._engine.has_work or self._broken_by is not None:
            if self._inbox.empty() and self._broken_by is None and self._uses_rest:
                self._engine.rest()
            self._inbox.get()()
        while not self._inbox.empty() and not self._has_left:
            self._inbox.get()()

    def _leave(self) -> None:
        self._has_left = True

    def _add(self, request: GenerationRequest, sink: Sink, timeline: StageTimeline | None) -> None:
        try:
            if self._broken_by is not None:
                raise self._broken_by
            self._engine.add(request, timeline)
        except VivaceError as error:
            self._send(request.request_id, sink, [FailEvent(request.request_id, error)])
        else:
            self._sinks[request.request_id] = sink

    def _answer(self, question: Callable[[Engine], AnswerT], answer: "Future[AnswerT]") -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            if self._broken_by is not None:
                raise self._broken_by
            answer.set_result(question(self._engine))
        except Exception as error:
            answer.set_exception(error)

    def _cancel(self, request_id: str, choice: int | None) -> None:
        self._tell(self._engine.cancel(request_id, choice))

    def _tell_last(self) -> None:
        """Tell what the last step brought, if it was not told."""
        events, self._untold = self._untold, ()
        self._tell(events)

    def _tell(self, events: Sequence[EngineEvent]) -> None:
        """Give each request its events, and forget those that have ended."""
        by_request: dict[str, list[EngineEvent]] = {}
        for event in events:
            by_request.setdefault(event.request_id, []).append(event)
        for request_id, mine in by_request.items():
            sink = self._sinks.get(request_id)
            if sink is None:
                continue
            if not self._send(request_id, sink, mine):
                self._inbox.put(partial(self._cancel, request_id, None))  # not now: a step may be under way
            if not isinstance(mine[-1], TokenEvent) and not self._engine.is_live(request_id):
                self._sinks.pop(request_id, None)

    def _send(self, request_id: str, sink: Sink, events: Sequence[EngineEvent]) -> bool:
        try:
            sink(events)
        except Exception:
            logger.warning("the reader of request %s is gone", request_id, exc_info=True)
            self._sinks.pop(request_id, None)
            return False
        return True

    def _break(self, error: Exception) -> None:
        """The engine's own state cannot be trusted any more: nothing is computed from here on."""
        self._tell_last()
        if self._broken_by is None:
            self._broken_by = EngineError(f"The engine broke: {error!r}.", "Restart it, and report what happened.")
        self._fail_everyone(self._broken_by)

    def _fail_everyone(self, error: VivaceError) -> None:
        sinks, self._sinks = self._sinks, {}
        for request_id, sink in sinks.items():
            self._send(request_id, sink, [FailEvent(request_id, error)])
