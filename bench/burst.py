"""Chats that come all at once, without HTTP: when their first tokens come, and how fast all are served.

    python bench/burst.py [--model M] [--chats 16] [--prompt 240] [--shared 192] [--answer 128] [--bits 12] [--turns 2]

Of each prompt the first `--shared` tokens are the same, as with a system prompt; nobody has computed them before. In
turns: chats that wait for what another is computing (`waits`), and chats that do not, because each has to start within
a time that is never over (`apart`). Medians of the turns.
"""

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.catalogue_rows import DEFAULT_MODEL
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.types.events import EngineEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, ServiceLevel, StopParams
from vivace.types.step import BLOCK_SIZE

FIRST_ID = 1000  # below are the special tokens


@dataclass(frozen=True, slots=True)
class Burst:
    """Seconds to the first tokens and to the end, and rows computed for the prompts."""

    p50_s: float
    p95_s: float
    total_s: float
    num_rows: int


def run_burst(loop: EngineLoop, options: argparse.Namespace, name: str, *, waits: bool) -> Burst:
    """One burst; the prompts of each name are new."""
    draw = random.Random(name)
    shared = tuple(draw.randrange(FIRST_ID, options.vocabulary) for _ in range(options.shared))
    firsts: dict[int, float] = {}
    ended = threading.Semaphore(0)
    level = ServiceLevel() if waits else ServiceLevel(queue_timeout_s=1e4)
    before = loop.stats().num_computed_tokens
    began_s = time.perf_counter()

    def sink_of(number: int) -> Callable[[Sequence[EngineEvent]], None]:
        def sink(events: Sequence[EngineEvent]) -> None:
            firsts.setdefault(number, time.perf_counter() - began_s)
            if not isinstance(events[-1], TokenEvent):
                ended.release()

        return sink

    for number in range(options.chats):
        own = (draw.randrange(FIRST_ID, options.vocabulary) for _ in range(options.prompt - options.shared))
        stopping = StopParams(max_tokens=options.answer, ignore_eos=True)
        greedy = SamplingParams(temperature=0.0)
        request = GenerationRequest(f"{name}-{number}", (*shared, *own), greedy, stopping, service_level=level)
        loop.submit(request, sink_of(number))
    for _ in range(options.chats):
        ended.acquire()
    total_s = time.perf_counter() - began_s
    num_rows = loop.stats().num_computed_tokens - before - options.chats * (options.answer - 1)
    times = sorted(firsts.values())
    return Burst(statistics.median(times), times[int(0.95 * len(times))], total_s, num_rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    for name, usual in (("chats", 16), ("prompt", 240), ("shared", 192), ("answer", 128), ("bits", 12), ("turns", 2)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    loaded = open_model(resolve(options.model))
    length = options.prompt + options.answer
    num_blocks = (options.chats + 1) * (length // BLOCK_SIZE + 2)
    graph = build_graph(loaded.spec)
    executor = NativeExecutor(graph, loaded.weights, num_blocks=num_blocks, activation_bits=options.bits)
    options.vocabulary = executor.vocab_size
    loop = EngineLoop(Engine(executor, SchedulerConfig(context_length=length)))
    found: dict[bool, list[Burst]] = {True: [], False: []}
    try:
        run_burst(loop, argparse.Namespace(**{**vars(options), "chats": 1}), "warm", waits=True)
        for turn in range(options.turns):
            for waits in (True, False) if turn % 2 == 0 else (False, True):
                found[waits].append(run_burst(loop, options, f"{turn}-{waits}", waits=waits))
    finally:
        loop.close()
    print("         first token p50      p95    tokens/s   rows of prompts")
    for waits, bursts in found.items():
        p50_s, p95_s, total_s, rows = (
            statistics.median(getattr(burst, name) for burst in bursts)
            for name in ("p50_s", "p95_s", "total_s", "num_rows")
        )
        speed = options.chats * options.answer / total_s
        label = "waits" if waits else "apart"
        print(f"{label:8}{p50_s:13.2f} s{p95_s:7.2f} s{speed:12.0f}{rows:18.0f}")


if __name__ == "__main__":
    main()
