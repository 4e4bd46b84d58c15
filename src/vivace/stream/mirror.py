"""A stream that is at work on another server, as it is read here: its events come through the shared store.

When that server dies, another goes on with the stream, and the readers of a mirror notice nothing but the wait.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing

import msgspec

from vivace.stream.diagnostics import StreamDiagnostics
from vivace.stream.errors import StreamMovedError
from vivace.stream.journal import Progress, RunRecord
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import RunOptions
from vivace.stream.readable import ReadableStream
from vivace.stream.shared_store import SharedStore
from vivace.stream.work import RunEnd, Writer
from vivace.types.errors import EngineError, VivaceError
from vivace.types.events import FinishReason

logger = logging.getLogger(__name__)


class MirrorRun(ReadableStream):
    """Construct it in the event loop, then `start` it.

    Args:
        record, options, log, diagnostics: see ReadableStream; the log holds what the store had.
        store: where the events come from.
        look: what the store has by now of the answer: who writes it, and how far each choice is.
    """

    def __init__(
        self,
        record: RunRecord,
        options: RunOptions,
        log: NumberedLog,
        *,
        store: SharedStore,
        look: Callable[[], tuple[Writer, Mapping[int, Progress]]],
        diagnostics: StreamDiagnostics | None = None,
    ) -> None:
        super().__init__(record, options, log, diagnostics)
        self._store = store
        self._look = look
        self._task: asyncio.Task[None] | None = None

    @property
    def progress(self) -> Mapping[int, Progress]:
        """How much of each choice is written by now."""
        return self._look()[1]

    @property
    def writer(self) -> Writer:
        """A writer that knows what was written by now."""
        return self._look()[0]

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def cancel(self, reason: FinishReason = "cancelled") -> None:
        """Ask the server that works on it to end it."""
        if not self.log.has_ended:
            self._store.stop(self.stream_id)

    def notice(self, name: str, told: Mapping[str, object]) -> None:
        """Only the server that works on a stream writes into it."""

    async def join(self) -> None:
        """Wait for the end of the stream."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()
        await self.join()

    async def _follow(self) -> None:
        try:
            async with aclosing(self._store.follow(self.stream_id, self.log.last_number)) as batches:
                async for events in batches:
                    for event in events:
                        self._take(event)
                    if self.log.has_ended:
                        return
        except StreamMovedError as error:
            self.log.abandon(error)
        except (VivaceError, msgspec.MsgspecError, ValueError):
            logger.exception("what the store has of stream %s... cannot be read", self.stream_id[:16])
            self.log.abandon(StreamMovedError("The stream cannot be read here.", "Read on with the last number."))

    def _take(self, event: LogEvent) -> None:
        if event.number != self.log.last_number + 1:  # dropped before it came here
            raise StreamMovedError("Events were missed.", "Read on with the last number.")
        if event.name != "end":
            self.log.append(event.payload, name=event.name, reading_s=event.reading_s)
            return
        status = StreamStatus(msgspec.json.decode(event.payload, type=RunEnd).status)
        if status is StreamStatus.FAILED and not self.log.holds_answer:
            self.failure = EngineError("The answer failed on the server that worked on it.", "Send the request again.")
        self.log.end(status, event.payload)
