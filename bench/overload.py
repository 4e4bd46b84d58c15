"""An overload trace on a simulated clock: the same arrivals under every order, and what their readers saw.

Used by bench/engine.py. The machine is a step cost model: fixed + per row + per pair, in milliseconds; requests come
in a burst that is more than it can serve at reading speed, between two calm stretches.
"""

from dataclasses import dataclass

import numpy as np

from vivace.cache.block_pool import BlockPool
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.experience import HAPPY_QOE, STALLED_S
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.scheduler import Scheduler
from vivace.schedule.step_cost import StepCost, num_pairs
from vivace.telemetry.reading import quality_of_experience, stalled_s
from vivace.types.events import TokenEvent
from vivace.types.request import GenerationRequest, ServiceLevel, StopParams
from vivace.types.step import Draw, StepResult

MACHINE = StepCost(fixed_ms=8.0, per_row_ms=1.0, per_pair_ms=0.0005)
READING_TOKENS_PER_S = 6.0
TTFT_S = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it comes, in seconds."""

    at_s: float
    request: GenerationRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one order made of a trace."""

    order: str
    ttft_p50_s: float
    ttft_p95_s: float
    mean_qoe: float
    happy_share: float
    stalled_share: float
    tokens_per_s: float
    num_preemptions: int


class Clock:
    """Nanoseconds that pass when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        """Nanoseconds since the start."""
        return self.now_ns


def overload_trace(num_requests: int = 240, seed: int = 0) -> list[Arrival]:
    """Calm, a burst of three times the rate, calm; prompts and answers of mixed lengths, eight tenants."""
    generator = np.random.default_rng(seed)
    arrivals, at_s = [], 0.0
    for index in range(num_requests):
        in_burst = num_requests // 4 <= index < 3 * num_requests // 4
        at_s += float(generator.exponential(0.25 if in_burst else 0.75))
        length = int(np.clip(generator.lognormal(4.5, 0.9), 8, 1500))
        prompt = tuple(generator.integers(0, 30_000, length).tolist())
        stopping = StopParams(max_tokens=int(np.clip(generator.lognormal(4.8, 0.6), 16, 500)))
        level = ServiceLevel(tier=int(generator.integers(0, 3)), tenant=str(int(generator.integers(0, 8))))
        arrivals.append(Arrival(at_s, GenerationRequest(str(index), prompt, stopping=stopping, service_level=level)))
    return arrivals


def play(kind: str, trace: list[Arrival], *, num_blocks: int = 1200, max_sequences: int = 32) -> Outcome:
    """Run a trace under an order until all is answered."""
    order = OrderConfig(kind, ttft_s=TTFT_S, reading_tokens_per_s=READING_TOKENS_PER_S)
    config = SchedulerConfig(max_batch_tokens=512, max_sequences=max_sequences, order=order)
    clock = Clock()
    scheduler = Scheduler(config, BlockPool(num_blocks), clock)
    times: dict[str, list[float]] = {arrival.request.request_id: [] for arrival in trace}
    coming = list(reversed(trace))
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            clock.now_ns = max(clock.now_ns, round(coming[-1].at_s * 1e9) + 1)
        while coming and coming[-1].at_s <= clock.now_ns / 1e9:
            scheduler.add(coming.pop().request, seed=0)
        plan = scheduler.schedule()
        elapsed_ms = MACHINE.step_ms(plan.num_tokens, num_pairs(plan.shares))
        clock.now_ns += round(elapsed_ms * 1e6)
        scheduler.note_step(plan, elapsed_ms)
        draws = tuple(Draw(9) for share in plan.shares if share.wants_logits)
        for event in scheduler.commit(plan, StepResult(draws)):
            if isinstance(event, TokenEvent):
                times[event.request_id].append(clock.now_ns / 1e9)
    return _outcome(kind, trace, times, scheduler.num_preemptions)


def _outcome(kind: str, trace: list[Arrival], times: dict[str, list[float]], num_preemptions: int) -> Outcome:
    came = {arrival.request.request_id: arrival.at_s for arrival in trace}
    ttft = [times[name][0] - came[name] for name in times]
    qoe = [quality_of_experience(times[name], came[name], READING_TOKENS_PER_S, TTFT_S) for name in times]
    stalled = [stalled_s(each, READING_TOKENS_PER_S) > STALLED_S for each in times.values()]
    num_tokens = sum(len(each) for each in times.values())
    return Outcome(
        order=kind,
        ttft_p50_s=float(np.percentile(ttft, 50)),
        ttft_p95_s=float(np.percentile(ttft, 95)),
        mean_qoe=float(np.mean(qoe)),
        happy_share=float(np.mean(np.array(qoe) >= HAPPY_QOE)),
        stalled_share=float(np.mean(stalled)),
        tokens_per_s=num_tokens / max(each[-1] for each in times.values()),
        num_preemptions=num_preemptions,
    )
