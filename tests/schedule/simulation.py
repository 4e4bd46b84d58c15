"""A scheduler on a simulated clock: every step takes a known time, every row of logits draws the same token."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vivace.cache.block_pool import BlockPool
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.scheduler import Scheduler
from vivace.schedule.sequence import Sequence
from vivace.types.events import EngineEvent, FinishEvent, TokenEvent
from vivace.types.request import GenerationRequest, ServiceLevel, StopParams
from vivace.types.step import Draw, SequenceShare, StepPlan, StepResult

EVERYBODY = ServiceLevel()


class Clock:
    """Nanoseconds that pass when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    @property
    def now_s(self) -> float:
        return self.now_ns / 1e9

    def advance(self, seconds: float) -> None:
        self.now_ns += max(1, math.ceil(seconds * 1e9))


@dataclass(frozen=True)
class Job:
    """A request and when it comes."""

    name: str
    at_s: float = 0.0
    level: ServiceLevel = EVERYBODY
    num_prompt: int = 4
    num_tokens: int = 8

    def request(self) -> GenerationRequest:
        prompt = tuple((len(self.name) * 7 + ord(self.name[0]) + position) % 50 for position in range(self.num_prompt))
        return GenerationRequest(self.name, prompt, stopping=StopParams(self.num_tokens), service_level=self.level)


class Simulation:
    """Runs jobs; a step takes `step_ms` + `row_ms` a row."""

    def __init__(
        self,
        order: OrderConfig,
        *,
        num_blocks: int = 400,
        step_ms: float = 100.0,
        row_ms: float = 0.0,
        warm_up_steps: int = 0,
        max_batch_tokens: int = 128,
        **sizes: object,
    ) -> None:
        self.clock = Clock()
        self.step_ms, self.row_ms = step_ms, row_ms
        config = SchedulerConfig(max_batch_tokens=max_batch_tokens, order=order, **sizes)  # type: ignore[arg-type]
        self.scheduler = Scheduler(config, BlockPool(num_blocks), self.clock)
        self.started: list[str] = []
        self.finished: list[str] = []
        self.first_token_s: dict[str, float] = {}
        self.token_times_s: dict[str, list[float]] = {}
        for number in range(warm_up_steps):
            rows = 1 + number % 5
            plan = StepPlan((SequenceShare(0, 0, rows, False),))
            self.scheduler.note_step(plan, step_ms + row_ms * rows)

    @property
    def waiting(self) -> list[Sequence]:
        return list(self.scheduler._roster.waiting)

    def run(self, jobs: Iterable[Job], after_step: Callable[[], None] = lambda: None, limit: int = 20_000) -> None:
        """Until all are done."""
        coming = sorted(jobs, key=lambda job: job.at_s)
        for _ in range(limit):
            while coming and coming[0].at_s <= self.clock.now_s:
                self.scheduler.add(coming.pop(0).request(), seed=0)
            if self.scheduler.has_work:
                self.step()
                after_step()
            elif coming:
                self.clock.advance(coming[0].at_s - self.clock.now_s)
            else:
                return
        raise AssertionError("not done")

    def step(self) -> StepPlan:
        plan = self.scheduler.schedule()
        assert plan.shares
        for share in plan.shares:
            name = self.scheduler.running[share.sequence_id].request.request_id
            if name not in self.started:
                self.started.append(name)
        elapsed_ms = self.step_ms + self.row_ms * plan.num_tokens
        self.clock.advance(elapsed_ms / 1e3)
        self.scheduler.note_step(plan, elapsed_ms)
        draws = tuple(Draw(9) for share in plan.shares if share.wants_logits)
        self._note(self.scheduler.commit(plan, StepResult(draws)))
        self.scheduler.check()
        return plan

    def _note(self, events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, TokenEvent):
                self.first_token_s.setdefault(event.request_id, self.clock.now_s)
                self.token_times_s.setdefault(event.request_id, []).append(self.clock.now_s)
            elif isinstance(event, FinishEvent):
                self.finished.append(event.request_id)
