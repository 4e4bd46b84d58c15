"""One stream at work: pulls the chunks of an answer, writes them into the log, and ends for exactly one reason.

Owns the task that pulls, the count of readers and the timers. A reader that leaves never ends the work by itself: what
follows is the request's own disconnect policy. `cancel` is the separate verb.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from vivace.stream.attendance import ATTACH_S
from vivace.stream.checkpoints import SentenceMarks
from vivace.stream.coalesce import Coalescer
from vivace.stream.diagnostics import StreamDiagnostics
from vivace.stream.errors import StreamMovedError
from vivace.stream.journal import Journal, NoJournal, Progress, RunRecord
from vivace.stream.lifecycle import StreamStatus, status_of
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import RunOptions
from vivace.stream.pacing import ReadingTime
from vivace.stream.readable import ReadableStream
from vivace.stream.stages import through
from vivace.stream.timeouts import Timeouts
from vivace.stream.work import Notice, RunEnd, Work, Writer
from vivace.stream.written import WrittenAnswer
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import EngineError, OverloadedError, VivaceError
from vivace.types.events import FinishReason

logger = logging.getLogger(__name__)


class StreamRun(ReadableStream):
    """One accepted request and its log. Construct it in the event loop, then `start` it.

    Args:
        record: what the journal keeps of it; `record.stream_id` names it.
        work: what is to be streamed.
        options: how.
        log: empty, or what it held before a restart.
        journal: told of every event before a reader sees it.
        progress: what was written before a restart: the work tells the answer from its start, and this much of it is
            not written again.
    """

    def __init__(
        self,
        record: RunRecord,
        work: Work,
        options: RunOptions,
        log: NumberedLog,
        *,
        journal: Journal | None = None,
        progress: Mapping[int, Progress] | None = None,
        diagnostics: StreamDiagnostics | None = None,
    ) -> None:
        keep_s = options.on_disconnect.keep_s
        super().__init__(record, options, log, diagnostics, keep_s=keep_s, on_left=self.cancel)
        self._work = work
        self._journal = journal or NoJournal()
        self._written = WrittenAnswer(progress or {})
        self._coalescer = Coalescer() if options.coalesce else None
        self._send_timer: asyncio.TimerHandle | None = None
        self._has_opened = log.holds_answer
        self._batch: list[LogEvent] = []
        self._reasons = self._written.reasons
        self._usage: Usage | None = None
        self._ended_by: FinishReason | None = None
        self._reading: dict[int, ReadingTime] = {}
        self._marks: dict[int, SentenceMarks] = {}
        self._timeouts = Timeouts(options, self._tell_slow, partial(self.cancel, "timeout"))
        self._is_read_elsewhere = False
        self._told_lead_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._companions: set[asyncio.Task[None]] = set()

    @property
    def progress(self) -> Mapping[int, Progress]:
        """How much of each choice is written."""
        return self._written.progress

    @property
    def writer(self) -> Writer:
        """Who writes its payloads."""
        return self._work.writer

    def start(self) -> None:
        """Begin the work.

        Raises:
            StorageError: the journal cannot take it.
        """
        if not self.log.last_number:
            self._journal.begin(self.record)
        if self._work.opens_at_once:
            self._open()
            self._commit()
            if self.log.lost is not None:
                raise self.log.lost
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._diagnostics.note_start()
        self._attendance.watch(at_least_s=ATTACH_S)
        self._timeouts.start()

    def cancel(self, reason: FinishReason = "cancelled") -> None:
        """End the work early; what there is stays readable. Nothing happens to a stream that has ended."""
        if not self.log.has_ended and self._ended_by is None:
            self._ended_by = reason
            self._work.stop()

    def abort(self) -> None:
        """End at once, without waiting for the work's own end."""
        if self._task is not None and not self._task.done():
            self._ended_by = self._ended_by or "cancelled"
            self._task.cancel()

    async def join(self) -> None:
        """Wait until the work has ended and cleaned up."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell_slow(self) -> None:
        self.notice("slow", {"waited_s": self.options.soft_timeout_s})

    def tell_lead(self, now_s: float) -> None:
        """Tell whoever draws the answer how much of it waits for its reader."""
        lead_s, is_all = self.lead(now_s)
        if lead_s or is_all or self._told_lead_s:
            self._work.note_reader(lead_s, is_all)
            self._told_lead_s = lead_s

    def set_read_elsewhere(self, is_read: bool) -> None:
        """Whether somebody reads it on another server: as good as a reader here."""
        if is_read != self._is_read_elsewhere:
            self._is_read_elsewhere = is_read
            (self._attendance.enter if is_read else self._attendance.leave)()

    def lose(self, error: StreamMovedError) -> None:
        """The stream is not this server's any more: nothing is written here from now on, not even an end."""
        if self.log.lost is None:
            self.log.abandon(error)
            if self._task is not None:
                self._task.cancel()

    def notice(self, name: str, told: Mapping[str, object]) -> None:
        """Write an event for readers that asked for such events; nothing once the stream has ended."""
        if self.options.events and not self.log.has_ended:
            self._append(msgspec.json.encode(told), name=name)
            self._commit()

    def accompany(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the stream as long as it runs; it may write notices."""
        task = asyncio.get_running_loop().create_task(work)
        self._companions.add(task)
        task.add_done_callback(self._companion_ended)

    def _companion_ended(self, task: asyncio.Task[None]) -> None:
        self._companions.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("what accompanied stream %s... failed", self.stream_id[:16], exc_info=task.exception())

    async def _run(self) -> None:
        status = StreamStatus.FAILED
        try:
            await self._write_all()
            status = self._close()
        except VivaceError as error:
            self._fail(error)
        except asyncio.CancelledError:
            status = StreamStatus.CANCELLED
        except Exception:
            logger.exception("stream %s... failed", self.stream_id[:16])
            self._fail(EngineError("The server made a mistake of its own.", "Its log says more."))
        finally:
            self._attendance.stop()
            self._timeouts.stop()
            for companion in self._companions:
                companion.cancel()
            if self._send_timer is not None:
                self._send_timer.cancel()
            if self.log.lost is None:
                self._end(status)
            else:
                self._diagnostics.note_end("moved")

    async def _write_all(self) -> None:
        async with aclosing(self._work.chunks) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Notice):
                    self.notice(chunk.name, chunk.told)
                    continue
                self._timeouts.note_token()
                self._take(chunk)
                self._commit()

    def _take(self, chunk: AnswerChunk) -> None:
        self._usage = chunk.usage or self._usage
        self._diagnostics.note_tokens(len(chunk.token_ids))
        if chunk.finish_reason is not None:
            chunk = replace(chunk, finish_reason=self._true_reason(chunk.finish_reason))
        for ready in through(self._work.stages, chunk):
            self._note_end(ready)
            for due in self._coalesced(ready):
                self._emit(due)
        self._set_send_timer()

    def _note_end(self, chunk: AnswerChunk) -> None:
        """Remember how a choice ended; when a filter has ended the last one, the work behind them ends too."""
        if chunk.finish_reason is None:
            return
        self._reasons[chunk.choice] = chunk.finish_reason
        if chunk.finish_reason == "content_filter" and len(self._reasons) == self._work.num_choices:
            self.cancel("content_filter")

    def _coalesced(self, chunk: AnswerChunk) -> list[AnswerChunk]:
        if self._coalescer is None:
            return [chunk]
        return self._coalescer.offer(chunk, asyncio.get_running_loop().time())

    def _set_send_timer(self) -> None:
        due_s = self._coalescer.due_s if self._coalescer is not None else None
        if due_s is not None and self._send_timer is None:
            self._send_timer = asyncio.get_running_loop().call_at(due_s, self._send_held)

    def _send_held(self) -> None:
        self._send_timer = None
        if self._coalescer is not None and not self.log.has_ended:
            for chunk in self._coalescer.take(asyncio.get_running_loop().time()):
                self._emit(chunk)
            self._commit()

    def _emit(self, chunk: AnswerChunk) -> None:
        found = self._marks.setdefault(chunk.choice, SentenceMarks()).feed(chunk.text) if self.options.events else ()
        fresh = self._written.fresh(chunk)
        if fresh is None:
            return
        self._write(fresh)
        for mark in found:
            told = {"name": mark.name, "choice": chunk.choice, "offset": mark.offset}
            self._append(msgspec.json.encode(told), name="checkpoint")

    def _true_reason(self, reason: FinishReason) -> FinishReason:
        """A choice that this side ended has this side's reason; one that nobody here ended was cut by a shutdown.

        Raises:
            OverloadedError: the latter.
        """
        if reason != "cancelled":
            return reason
        if self._ended_by is None:
            raise OverloadedError(
                "The answer was ended by the server before it was complete.", "Send the request again."
            )
        return self._ended_by

    def _open(self) -> None:
        if not self._has_opened:
            self._has_opened = True
            for payload in self._work.writer.opening():
                self._append(payload)

    def _write(self, chunk: AnswerChunk) -> None:
        self._open()
        reading_s = self._reading_s(chunk)
        for payload in self._work.writer.piece(chunk):
            self._append(payload, reading_s=reading_s)
            reading_s = 0.0
        self._written.note(chunk)

    def _reading_s(self, chunk: AnswerChunk) -> float:
        return self._reading.setdefault(chunk.choice, ReadingTime()).of(chunk.text)

    def _append(self, payload: bytes, *, name: str = "", reading_s: float = 0.0) -> None:
        self._batch.append(self.log.append(payload, name=name, reading_s=reading_s))

    def _commit(self) -> None:
        """Hand what was written to the journal; readers run only after this function has returned to the loop."""
        if self._batch:
            batch, self._batch = self._batch, []
            try:
                self._journal.append(self.stream_id, batch, self.progress)
            except StreamMovedError as error:
                self.lose(error)

    def _close(self) -> StreamStatus:
        self._send_held()
        for payload in self._work.writer.closing(self._usage):
            self._append(payload)
        return status_of(set(self._reasons.values()))

    def _fail(self, error: VivaceError) -> None:
        self.failure = error
        if self.log.last_number:
            self._send_held()
            self._append(self._work.writer.failure(error))

    def _end(self, status: StreamStatus) -> None:
        usage = self._usage or Usage(self._work.num_prompt, self._written.num_tokens)
        end = RunEnd(
            status=status.value,
            reasons=[self._reasons[choice] for choice in sorted(self._reasons)],
            usage={"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
            error_code=None if self.failure is None else self.failure.code,
            continue_token=self.stream_id if status is StreamStatus.INCOMPLETE else None,
        )
        self._batch.append(self.log.end(status, msgspec.json.encode(end)))
        self._diagnostics.note_end(status.value)
        batch, self._batch = self._batch, []
        try:
            self._journal.end(self.stream_id, batch, self.progress, status)
        except StreamMovedError as error:
            self.log.abandon(error)
        except VivaceError:
            logger.exception("the end of stream %s... was not kept", self.stream_id[:16])
