"""What a stream costs a token beside the model: screen, flush, journal, log; and a shared store, where Redis is there.

python bench/stream_costs.py
"""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from vivace.stream.flush import FLUSH_POLICIES, FlushStage
from vivace.stream.journal import Journal, RunRecord
from vivace.stream.log import NumberedLog
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.redis_store import RedisStore
from vivace.stream.run import StreamRun
from vivace.stream.safety.screen import SafetyConfig, SafetyRules, ScreenStage
from vivace.stream.sqlite_journal import SqliteJournal
from vivace.stream.stages import Stage
from vivace.stream.work import Work
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import MissingExtraError, VivaceError

WORDS = ("The", "weather", "in", "Paris", "is", "fine", "today", ",", "so", "we", "今天", "天气", "很", "好", "。")
TOKENS = [f"{word} " for word in WORDS] * 100
TERMS = tuple(f"forbidden{number}" for number in range(1000))


class PlainWriter:
    """Payloads of the size of a chat chunk."""

    def opening(self) -> Iterable[bytes]:
        """Nothing."""
        return ()

    def piece(self, chunk: AnswerChunk) -> Iterable[bytes]:
        """The text, padded."""
        yield chunk.text.encode().ljust(220)

    def closing(self, usage: Usage | None) -> Iterable[bytes]:
        """Nothing."""
        return ()

    def failure(self, error: VivaceError) -> bytes:
        """Nothing."""
        return b""


async def chunks() -> AsyncGenerator[AnswerChunk, None]:
    """An answer as fast as it can be taken."""
    for token in TOKENS:
        yield AnswerChunk(0, token, (1,))
    yield AnswerChunk(0, "", finish_reason="stop", usage=Usage(1, len(TOKENS)))


async def seconds(stages: tuple[Stage, ...], journal: Journal | None, name: str) -> float:
    """Time of one whole answer."""
    work = Work(chunks(), lambda: None, PlainWriter(), stages)
    run = StreamRun(RunRecord(name, "", "bench", b""), work, RunOptions(KEEP), NumberedLog(2**30), journal=journal)
    start = time.perf_counter()
    run.start()
    await run.join()
    return time.perf_counter() - start


def main() -> None:
    """Print microseconds a token, median of five answers of 1,500 tokens."""
    rules = SafetyRules(SafetyConfig(TERMS, ("personal", "secrets")))
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "streams.db")
        for label, make_stages, kept in (
            ("log alone", lambda: (), None),
            ("log and flush policy", lambda: (FlushStage(FLUSH_POLICIES["token"]),), None),
            ("log and screen (1,000 terms, 14 patterns)", lambda: (ScreenStage(rules),), None),
            ("log and SQLite file", lambda: (), journal),
        ):
            times = [asyncio.run(seconds(make_stages(), kept, f"{label}{turn}")) for turn in range(5)]
            print(f"{label:45} {median(times) / len(TOKENS) * 1e6:8.1f} us/token")
        journal.close()
    with suppress(MissingExtraError, FileNotFoundError), redis_here() as url:
        store = RedisStore(url, lease_s=60)
        times = [asyncio.run(seconds((), store, f"redis{turn}")) for turn in range(5)]
        print(f"{'log and Redis on this machine':45} {median(times) / len(TOKENS) * 1e6:8.1f} us/token")
        store.close()


@contextmanager
def redis_here() -> Iterator[str]:
    """The URL of a Redis that keeps nothing on the disk.

    Raises:
        FileNotFoundError: it is not installed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
