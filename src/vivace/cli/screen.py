"""Writes answers to standard output as they come, and remembers how fast they came."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from vivace.types.answer import AnswerChunk, Usage
from vivace.types.events import FinishReason

_KEPT_CONTROLS = "\n\t"
_REMOVED = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT_CONTROLS}


@dataclass(frozen=True, slots=True)
class Shown:
    """What was written of one answer and how long it took."""

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None
    first_token_s: float | None
    total_s: float

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token; None for answers too short to have one."""
        if self.usage is None or self.first_token_s is None or self.usage.completion_tokens < 2:
            return None
        writing_s = self.total_s - self.first_token_s
        return (self.usage.completion_tokens - 1) / writing_s if writing_s > 0 else None

    def figures(self) -> str:
        """The figures in one line."""
        if self.usage is None:
            return "no figures: the answer was stopped"
        parts = [f"{self.usage.prompt_tokens} tokens read ({self.usage.cached_tokens} from the cache)"]
        parts.append(f"{self.usage.completion_tokens} written")
        if self.first_token_s is not None:
            parts.append(f"first after {self.first_token_s:.3f} s")
        if self.tokens_per_s is not None:
            parts.append(f"then {self.tokens_per_s:.1f} tokens/s")
        return ", ".join(parts)


class AnswerWriter:
    """Writes one answer, flushing every piece.

    On a terminal, control characters are left out: a model must not be able to move the cursor or retitle a window.
    A KeyboardInterrupt passes through; `shown()` then tells what was written before it.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._clean = self._output.isatty()
        self._pieces: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._started_s = time.perf_counter()
        self._first_s: float | None = None
        self._last_s = self._started_s

    def write(self, chunks: Iterator[AnswerChunk]) -> None:
        """Write all chunks as they come."""
        for chunk in chunks:
            self._last_s = time.perf_counter()
            if chunk.token_ids and self._first_s is None:
                self._first_s = self._last_s
            self._finish_reason = chunk.finish_reason or self._finish_reason
            self._usage = chunk.usage or self._usage
            if chunk.text:
                self._pieces.append(chunk.text)
                self._output.write(chunk.text.translate(_REMOVED) if self._clean else chunk.text)
                self._output.flush()

    def end_line(self) -> None:
        """End the line the answer stopped in."""
        self._output.write("\n")
        self._output.flush()

    def shown(self) -> Shown:
        """What was written so far."""
        first_token_s = None if self._first_s is None else self._first_s - self._started_s
        return Shown(
            "".join(self._pieces), self._finish_reason, self._usage, first_token_s, self._last_s - self._started_s
        )
