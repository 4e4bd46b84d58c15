"""Small factories and a driver for engine tests."""

from collections.abc import Iterable

from engine.fake_executor import FakeExecutor
from vivace.engine.core import Engine
from vivace.schedule.config import SchedulerConfig
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, StopParams

GREEDY = SamplingParams(temperature=0)


def make_request(
    name: str = "r",
    prompt: Iterable[int] = (1, 2, 3),
    max_tokens: int | None = 8,
    sampling: SamplingParams = GREEDY,
    **others: object,
) -> GenerationRequest:
    stop_fields = {key: others.pop(key) for key in ("stop_token_ids", "ignore_eos", "stop") if key in others}
    stopping = StopParams(max_tokens=max_tokens, **stop_fields)  # type: ignore[arg-type]
    return GenerationRequest(name, tuple(prompt), sampling, stopping, **others)  # type: ignore[arg-type]


def small_config(**others: object) -> SchedulerConfig:
    sizes = {"max_batch_tokens": 64, "max_sequences": 8, "max_chunk_tokens": 64} | others
    return SchedulerConfig(**sizes)  # type: ignore[arg-type]


def run_to_end(engine: Engine, limit: int = 10_000, *, runs_ahead: bool = False) -> list[EngineEvent]:
    """Step until nothing is left, checking the blocks after each step; steps may begin by themselves if it says so."""
    events: list[EngineEvent] = []
    for _ in range(limit):
        if not engine.has_work:
            return events
        events += engine.step(may_run_ahead=lambda: runs_ahead)
        engine.scheduler.check()
    raise AssertionError(f"not done after {limit} steps")


def tokens_of(events: Iterable[EngineEvent], request_id: str = "r", choice: int = 0) -> list[int]:
    """The tokens of one choice, in order; their indexes must count from 0."""
    told = [event for event in events if isinstance(event, TokenEvent)]
    mine = [event for event in told if (event.request_id, event.choice) == (request_id, choice)]
    assert [event.index for event in mine] == list(range(len(mine)))
    return [event.token_id for event in mine]


def finish_of(events: Iterable[EngineEvent], request_id: str = "r", choice: int = 0) -> FinishEvent:
    """The one event that ended a choice."""
    (event,) = [
        event
        for event in events
        if isinstance(event, FinishEvent) and (event.request_id, event.choice) == (request_id, choice)
    ]
    return event


def failure_of(events: Iterable[EngineEvent], request_id: str = "r") -> FailEvent:
    """The event that failed a request, after which none follows."""
    mine = [event for event in events if event.request_id == request_id]
    assert isinstance(mine[-1], FailEvent)
    assert sum(isinstance(event, FailEvent) for event in mine) == 1
    return mine[-1]


def tokens_alone(request: GenerationRequest, **executor: int) -> dict[int, list[int]]:
    """What a request says by itself on a large pool, whole prompt in one step, no prefix cache: the reference."""
    memory = FakeExecutor(**executor)  # type: ignore[arg-type]
    engine = Engine(memory, SchedulerConfig(prefix_cache=False), local=memory.local_layers)
    engine.add(request)
    events: list[EngineEvent] = []
    while engine.has_work:
        events += engine.step()
    return {choice: tokens_of(events, request.request_id, choice) for choice in range(request.n)}
