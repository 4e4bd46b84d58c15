"""The conversation between a comparison and the engine it measures: one JSON object a line, an answer for each.

Runs under the peer's Python, so it needs the standard library alone. Requests:

    {"do": "load", "options": {...}}                        -> {"engine": {...}, "load_s": seconds}
    {"do": "generate", "prompts": [[ids]], "num_tokens": n} -> {"ids": [[...]], "texts": [...], "times": [[...]]}
    {"do": "logits", "windows": [[ids]], "file": path}      -> {"written": true or false}
    {"do": "memory"}                                        -> {"peak_bytes": n}

`times` are seconds from the start of the request to each token of each stream; `ids` are empty and `texts` full for an
engine that gives text alone. Whatever an engine prints goes to standard error: standard output belongs to this
conversation.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO


@dataclass(slots=True)
class Streams:
    """The tokens of each stream with the second each came at, counted from `start_s` (time.perf_counter).

    An engine that gives text and no ids notes its pieces in `texts`; a piece may then stand for several tokens.
    """

    ids: list[list[int]]
    texts: list[str]
    times: list[list[float]]
    start_s: float = field(default_factory=time.perf_counter)

    @classmethod
    def start(cls, num_streams: int) -> "Streams":
        """Nothing yet; the clock runs from here."""
        return cls([[] for _ in range(num_streams)], [""] * num_streams, [[] for _ in range(num_streams)])

    def note(self, stream: int, token_id: int) -> None:
        """A token of one stream came now."""
        self.ids[stream].append(int(token_id))
        self.times[stream].append(time.perf_counter() - self.start_s)

    def note_text(self, stream: int, text: str) -> None:
        """A piece of text of one stream came now."""
        self.texts[stream] += text
        self.times[stream].append(time.perf_counter() - self.start_s)


class ChildEngine(Protocol):
    """An engine that a comparison can drive."""

    def describe(self) -> dict[str, Any]:
        """Version and build, for the report."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """Continue prompts of token ids together, greedily, `num_tokens` each, past any end-of-text token."""
        ...


def serve(load: Callable[[Mapping[str, Any]], ChildEngine]) -> None:
    """Answer requests until standard input ends; an error is an answer {"error": text} and ends the process."""
    answers = _take_standard_output()
    engine: ChildEngine | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                started_s = time.perf_counter()
                engine = load(request["options"])
                answer = {"engine": engine.describe(), "load_s": time.perf_counter() - started_s}
            elif request["do"] == "generate":
                assert engine is not None
                streams = engine.generate(request["prompts"], request["num_tokens"])
                answer = {"ids": streams.ids, "texts": streams.texts, "times": streams.times}
            elif request["do"] == "logits":
                answer = {"written": _write_logits(engine, request["windows"], request["file"])}
            else:
                answer = {"peak_bytes": peak_memory_bytes()}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            os._exit(1)  # a broken engine's threads may never end
    os._exit(0)  # some engines crash when the interpreter tears them down


def _write_logits(engine: ChildEngine | None, windows: Sequence[Sequence[int]], file: str) -> bool:
    """The logits after each token of the second half of each window, float32 (positions, vocab).

    An engine that can give them has a method `logits`: ids and a first position to an array for the positions from it.
    """
    give = getattr(engine, "logits", None)
    if give is None:
        return False
    import numpy as np

    np.save(file, np.concatenate([np.asarray(give(ids, len(ids) // 2), dtype=np.float32) for ids in windows]))
    return True


def peak_memory_bytes() -> int:
    """The most memory this process and its children have held (Linux: VmHWM; 0 where it is unknown)."""
    return sum(_high_water_mark(pid) for pid in _family(os.getpid()))


def _take_standard_output() -> TextIO:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _high_water_mark(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def _family(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found
