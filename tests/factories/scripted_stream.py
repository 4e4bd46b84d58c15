"""Runs over scripted chunks, with a writer whose payloads are the text itself."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

from vivace.stream.journal import Journal, Progress, RunRecord
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import CANCEL, DisconnectPolicy, RunOptions
from vivace.stream.run import StreamRun
from vivace.stream.work import Work
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import VivaceError


class TextWriter:
    """Payloads are the UTF-8 text of a chunk; opening, finish reason and errors stand in angle brackets."""

    def opening(self) -> Iterable[bytes]:
        return [b"<open>"]

    def piece(self, chunk: AnswerChunk) -> Iterable[bytes]:
        if chunk.text:
            yield chunk.text.encode()
        if chunk.finish_reason:
            yield f"<{chunk.finish_reason}>".encode()

    def closing(self, usage: Usage | None) -> Iterable[bytes]:
        return [b"<close>"]

    def failure(self, error: VivaceError) -> bytes:
        return f"<{error.code}>".encode()


class Script:
    """Chunks that come one at a time: each waits for a permit, unless `free`.

    Args:
        pieces: texts of choice 0, a token each; an exception among them is raised.
        free: never wait.
    """

    def __init__(self, pieces: Sequence[str | Exception], *, free: bool = True) -> None:
        self.pieces = pieces
        self.permits = asyncio.Semaphore(len(pieces) + 1 if free else 0)
        self.stopped = asyncio.Event()
        self.closed = False

    def stop(self) -> None:
        self.stopped.set()
        self.permits.release()

    async def chunks(self) -> AsyncGenerator[AnswerChunk, None]:
        written = 0
        try:
            for piece in self.pieces:
                await self.permits.acquire()
                if self.stopped.is_set():
                    break
                if isinstance(piece, Exception):
                    raise piece
                written += 1
                yield AnswerChunk(0, piece, (written,))
            else:
                await self.permits.acquire()
            reason = "cancelled" if self.stopped.is_set() else "stop"
            yield AnswerChunk(0, "", finish_reason=reason, usage=Usage(1, written))
        finally:
            self.closed = True


def scripted_run(
    script: Script,
    *,
    on_disconnect: DisconnectPolicy = CANCEL,
    options: RunOptions | None = None,
    max_bytes: int = 10**6,
    journal: Journal | None = None,
    events: Iterable[LogEvent] = (),
    progress: Mapping[int, Progress] | None = None,
    stream_id: str = "stream-1",
    owner: str = "me",
) -> StreamRun:
    """A run over a script, not started."""
    return StreamRun(
        RunRecord(stream_id, owner, "text", b""),
        Work(script.chunks(), script.stop, TextWriter()),
        options or RunOptions(on_disconnect=on_disconnect),
        NumberedLog(max_bytes, events),
        journal=journal,
        progress=progress,
    )


async def payloads(run: StreamRun, starting_after: int = 0) -> list[str]:
    """What a reader gets, the terminal event as "end"."""
    return [event.name or event.payload.decode() async for event in run.read(starting_after) if event is not None]
