"""What a stream costs a token beside the model: screen, flush, journal, log.

python bench/stream_costs.py
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from statistics import median

from vivace.stream.flush import FLUSH_POLICIES, FlushStage
from vivace.stream.journal import RunRecord
from vivace.stream.log import NumberedLog
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.run import StreamRun
from vivace.stream.safety.screen import SafetyConfig, SafetyRules, ScreenStage
from vivace.stream.sqlite_journal import SqliteJournal
from vivace.stream.stages import Stage
from vivace.stream.work import Work
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import VivaceError

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


async def seconds(stages: tuple[Stage, ...], journal: SqliteJournal | None, name: str) -> float:
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


if __name__ == "__main__":
    main()
