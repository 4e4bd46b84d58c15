"""What Python adds to a step of the engine, on its own thread, at 1, 8 and 16 streams.

    python bench/step_share.py [--model M] [--streams 1 8 16] [--tokens 120] [--json]

A step is a call on the core that computes rows, a call on the core that draws tokens, and Python before, between and
after them. `alone` is the Python that nothing else runs beside: a step's time less both calls. It is 0 where the core
began with the step by itself, with the tokens it had drawn (`ahead`: the share of such steps); with `--no-ahead` it
never does. `beside` is the Python that runs while the other threads compute already. Means over the steps in which all
streams write, the slowest twentieth left out: those in which the system had something else to do.
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


@dataclass(frozen=True, slots=True)
class TimedStep:
    """When the core began with a step and was done, and the Python that ran beside it and between its calls."""

    num_rows: int
    began_s: float
    ended_s: float
    beside_s: float
    between_s: float
    is_ahead: bool


class TimedExecutor(NativeExecutor):
    """Notes when the core was called and when it came back."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.steps: list[TimedStep] = []
        self._began_s = self._finishing_s = 0.0
        self._is_ahead = False

    def start(self, batch: ForwardBatch) -> None:
        """Begin, and note when."""
        self._num_rows = len(batch.token_ids)
        self._is_ahead, self._began_s = False, time.perf_counter()
        super().start(batch)

    def finish(self) -> NDArray[np.float32]:
        """Finish, and note when that began and ended."""
        self._finishing_s = time.perf_counter()
        logits = super().finish()
        self._computed_s = time.perf_counter()
        return logits

    def draw(
        self, logits: NDArray[np.float32], rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """Draw, and note that the step is over."""
        called_s = time.perf_counter()
        tokens = super().draw(logits, rows, histories)
        self._note(called_s - self._computed_s)
        return tokens

    def relay(
        self, rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]], stops: Sequence[NDArray[np.int32]]
    ) -> tuple[list[int], NDArray[np.float32] | None]:
        """Finish and draw, and note whether the next step has begun."""
        self._finishing_s = time.perf_counter()
        tokens, logits = super().relay(rows, histories, stops)
        self._note(0.0)
        if logits is None:
            self._is_ahead, self._began_s = True, self._ended_s
        return tokens, logits

    def _note(self, between_s: float) -> None:
        """A step has ended; so much Python ran between its rows and its draws."""
        self._ended_s = time.perf_counter()
        beside_s = self._finishing_s - self._began_s
        self.steps.append(TimedStep(self._num_rows, self._began_s, self._ended_s, beside_s, between_s, self._is_ahead))


@dataclass(frozen=True, slots=True)
class StepShare:
    """Milliseconds of a step of `streams` rows, and the share of them that began by themselves."""

    streams: int
    step_ms: float
    alone_ms: float
    beside_ms: float
    ahead: float


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
    pairs = [
        (now, after)
        for now, after in zip(executor.steps, executor.steps[1:], strict=False)
        if now.num_rows == after.num_rows == streams
    ]
    executor.steps.clear()
    return StepShare(
        streams,
        1e3 * usual([after.began_s - now.began_s for now, after in pairs]),
        1e3 * usual([0.0 if after.is_ahead else after.began_s - now.ended_s + now.between_s for now, after in pairs]),
        1e3 * usual([after.beside_s for _, after in pairs]),
        statistics.mean(after.is_ahead for _, after in pairs),
    )


def usual(numbers: list[float]) -> float:
    """The mean without the largest twentieth."""
    return statistics.mean(sorted(numbers)[: max(1, len(numbers) * 19 // 20)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--ahead", action=argparse.BooleanOptionalAction, default=True, help="steps may begin alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    loaded = open_model(resolve(arguments.model))
    most = max(arguments.streams)
    num_blocks = most * (-(-(PROMPT_TOKENS + arguments.tokens) // 16) + 2)
    executor = TimedExecutor(build_graph(loaded.spec), loaded.weights, num_blocks=num_blocks)
    config = SchedulerConfig(max_batch_tokens=512, max_sequences=most, context_length=CONTEXT, prefix_cache=False)
    engine = Engine(executor, config)
    loop = EngineLoop(engine)
    if not arguments.ahead:
        engine.scheduler.plan_ahead = lambda plan: None  # type: ignore[method-assign]
    try:
        shares = [measure(executor, loop, streams, arguments.tokens) for streams in arguments.streams]
    finally:
        loop.close()
    if arguments.json:
        print(json.dumps([asdict(share) for share in shares]))
        return
    print("streams   step, ms   Python alone, ms   Python beside the core, ms   began by itself")
    for share in shares:
        print(
            f"{share.streams:7d}{share.step_ms:11.2f}{share.alone_ms:19.3f}{share.beside_ms:29.3f}{share.ahead:18.0%}"
        )


if __name__ == "__main__":
    main()
