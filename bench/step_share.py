"""What Python adds to a step of the engine, on its own thread, at 1, 8 and 16 streams.

    python bench/step_share.py [--model M] [--streams 1 8 16] [--tokens 120] [--json]

A step is a call on the core that computes rows, a call on the core that draws tokens, and Python before, between and
after them. `critical` is the Python that nothing else runs beside: a step's time less both calls. `beside` is the
Python that runs while the other threads compute already. Medians over the steps in which all streams write.
"""

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.catalogue_rows import DEFAULT_MODEL
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.types.drawing import DrawNumbers
from vivace.types.events import EngineEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, StopParams
from vivace.types.step import ForwardBatch

PROMPT_TOKENS = 64
CONTEXT = 1024


class TimedExecutor(NativeExecutor):
    """Notes when the core was called and when it came back."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.calls: list[tuple[float, float, float, int]] = []  # started, finish began, finish ended, rows
        self.draws: list[float] = []

    def start(self, batch: ForwardBatch) -> None:
        """Begin, and note when."""
        self._started_s, self._num_rows = time.perf_counter(), len(batch.token_ids)
        super().start(batch)

    def finish(self) -> NDArray[np.float32]:
        """Finish, and note when that began and ended."""
        began_s = time.perf_counter()
        logits = super().finish()
        self.calls.append((self._started_s, began_s, time.perf_counter(), self._num_rows))
        return logits

    def draw(
        self, logits: NDArray[np.float32], rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """Draw, and note how long it took."""
        began_s = time.perf_counter()
        tokens = super().draw(logits, rows, histories)
        self.draws.append(time.perf_counter() - began_s)
        return tokens


@dataclass(frozen=True, slots=True)
class StepShare:
    """Milliseconds of a step of `streams` rows."""

    streams: int
    step_ms: float
    critical_ms: float
    beside_ms: float


def measure(executor: TimedExecutor, loop: EngineLoop, streams: int, tokens: int) -> StepShare:
    """Let so many streams write, each greedily and to the end."""
    ended = threading.Semaphore(0)

    def sink(events: Sequence[EngineEvent]) -> None:
        if not isinstance(events[-1], TokenEvent):
            ended.release()

    draw = random.Random(streams)
    for number in range(streams):
        prompt = tuple(draw.randrange(executor.vocab_size) for _ in range(PROMPT_TOKENS))
        stopping = StopParams(max_tokens=tokens, ignore_eos=True)
        request = GenerationRequest(
            request_id=f"{streams}-{number}-{time.perf_counter_ns()}",
            prompt_ids=prompt,
            sampling=SamplingParams(temperature=0.0),
            stopping=stopping,
        )
        loop.submit(request, sink)
    for _ in range(streams):
        ended.acquire()
    whole = [
        (now, drawn, after)
        for now, drawn, after in zip(executor.calls, executor.draws, executor.calls[1:], strict=False)
        if now[3] == after[3] == streams
    ]
    executor.calls.clear()
    executor.draws.clear()
    return StepShare(
        streams,
        1e3 * statistics.median(after[0] - now[0] for now, _, after in whole),
        1e3 * statistics.median(after[0] - now[2] - drawn for now, drawn, after in whole),
        1e3 * statistics.median(now[1] - now[0] for now, _, _ in whole),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    loaded = open_model(resolve(arguments.model))
    most = max(arguments.streams)
    num_blocks = most * (-(-(PROMPT_TOKENS + arguments.tokens) // 16) + 2)
    executor = TimedExecutor(build_graph(loaded.spec), loaded.weights, num_blocks=num_blocks)
    config = SchedulerConfig(max_batch_tokens=512, max_sequences=most, context_length=CONTEXT, prefix_cache=False)
    loop = EngineLoop(Engine(executor, config))
    try:
        shares = [measure(executor, loop, streams, arguments.tokens) for streams in arguments.streams]
    finally:
        loop.close()
    if arguments.json:
        print(json.dumps([asdict(share) for share in shares]))
        return
    print("streams   step, ms   Python alone, ms   Python beside the core, ms")
    for share in shares:
        print(f"{share.streams:7d}{share.step_ms:11.2f}{share.critical_ms:19.3f}{share.beside_ms:29.3f}")


if __name__ == "__main__":
    main()
