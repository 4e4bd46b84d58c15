"""The same text, always: whatever the company, the chunks, the cache, forks, cancels and pre-emptions."""

from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.fake_executor import FakeExecutor
from engine.harness import finish_of, tokens_alone, tokens_of
from vivace.cache.tiers import BlockTiers
from vivace.engine.core import Engine
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.orders.config import ORDER_NAMES, OrderConfig
from vivace.schedule.sequence import Sequence
from vivace.types.events import EngineEvent, FailEvent
from vivace.types.request import GenerationRequest, SamplingParams, ServiceLevel, StopParams

KINDS = (
    SamplingParams(temperature=0),
    SamplingParams(seed=7),
    SamplingParams(seed=8, top_k=6, repetition_penalty=1.2, frequency_penalty=0.3),
)


@dataclass(frozen=True)
class Arrival:
    """A request, when it comes, and when it (or one of its choices) is cancelled, in steps."""

    request: GenerationRequest
    at: int
    cancel_after: int | None
    cancel_choice: int | None


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    """Prompts of one family share all but their end, so that prefixes are found; families share all but their start."""
    family, length, own = draw(st.integers(0, 2)), draw(st.integers(1, 38)), draw(st.integers(0, 2))
    prompt = (family, *(position * 7 % 31 for position in range(length)), *((31,) * own))
    n, stops = draw(st.sampled_from((1, 1, 2, 3))), draw(st.sampled_from(((), (), (5, 6))))
    request = GenerationRequest(
        request_id="",
        prompt_ids=prompt,
        sampling=draw(st.sampled_from(KINDS)),
        stopping=StopParams(draw(st.sampled_from((1, 4, 20, 45))), stop_token_ids=stops),
        n=n,
        service_level=ServiceLevel(tier=draw(st.integers(0, 2)), tenant=draw(st.sampled_from(("", "a", "b")))),
    )
    cancel_after = draw(st.sampled_from((None, None, None, None, 0, 1, 3, 9)))
    return Arrival(request, draw(st.integers(0, 8)), cancel_after, draw(st.sampled_from((None, 0, n - 1))))


configs = st.builds(
    SchedulerConfig,
    max_batch_tokens=st.sampled_from((7, 9, 20, 64)),
    max_sequences=st.integers(1, 6),
    max_chunk_tokens=st.sampled_from((1, 3, 7, 16, 64)),
    max_prompt_tokens_beside_streams=st.sampled_from((1, 5, 64)),
    prefix_cache=st.booleans(),
    order=st.sampled_from([OrderConfig(kind, ageing_s=0.01, tier_credit_s=0.01) for kind in ORDER_NAMES]),
    inter_token_s=st.sampled_from((1e-6, 1e-3, 0.1)),
)


@lru_cache(maxsize=5000)
def _alone(request: GenerationRequest) -> dict[int, list[int]]:
    return tokens_alone(request)


class ProgressWatch:
    """A pre-empted sequence must know more before it is pre-empted again."""

    def __init__(self) -> None:
        self._running: dict[int, Sequence] = {}
        self._known_when_preempted: dict[int, int] = {}
        self.num_preempted = 0

    def look(self, engine: Engine) -> None:
        for sequence_id, sequence in self._running.items():
            if sequence_id not in engine.scheduler.running and sequence.num_computed == 0:
                self._note(sequence)
        self._running = dict(engine.scheduler.running)

    def _note(self, sequence: Sequence) -> None:
        if sequence.state.name != "WAITING":
            return
        self.num_preempted += 1
        before = self._known_when_preempted.get(sequence.sequence_id, 0)
        assert sequence.num_known > before, "pre-empted twice without progress"
        self._known_when_preempted[sequence.sequence_id] = sequence.num_known


def play(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], host_blocks: int | None = None
) -> tuple[Engine, list[EngineEvent]]:
    """Run arrivals and cancels against a fake executor, checking the books after each step.

    With `host_blocks`, what the pool forgets goes to host memory of that size and comes back from there.
    """
    executor = FakeExecutor(num_blocks)
    tiers = (
        None if host_blocks is None else BlockTiers(executor, host_blocks * executor.bytes_per_block, clock=lambda: 0)
    )
    engine = Engine(executor, config, tiers=tiers)
    watch = ProgressWatch()
    events: list[EngineEvent] = []
    waiting = {str(index): arrival for index, arrival in enumerate(plan)}
    cancels: list[tuple[int, str, int | None]] = []
    for step in range(5000):
        for name, arrival in list(waiting.items()):
            if arrival.at <= step:
                engine.add(replace(waiting.pop(name).request, request_id=name))
                if arrival.cancel_after is not None:
                    cancels.append((step + arrival.cancel_after, name, arrival.cancel_choice))
        for due, name, choice in cancels:
            if due == step:
                events += engine.cancel(name, choice)
        if not engine.has_work and not waiting:
            return engine, events
        num_before = len(engine.scheduler.running) + engine.scheduler.num_waiting
        told = engine.step()
        events += told
        assert engine.stats().num_steps or not num_before
        engine.scheduler.check()
        watch.look(engine)
    raise AssertionError("starved")


def assert_same_as_alone(plan: list[Arrival], events: list[EngineEvent]) -> None:
    for index, arrival in enumerate(plan):
        alone = _alone(arrival.request)
        for choice in range(arrival.request.n):
            tokens = tokens_of(events, str(index), choice)
            finish = finish_of(events, str(index), choice)
            if finish.reason == "cancelled":
                assert tokens == alone[choice][: len(tokens)]
            else:
                assert tokens == alone[choice]
            assert finish.num_generated == len(tokens) + (finish.reason == "stop")


def check_one(config: SchedulerConfig, num_blocks: int, plan: list[Arrival], host_blocks: int | None) -> None:
    engine, events = play(config, num_blocks, plan, host_blocks)
    assert_same_as_alone(plan, events)
    assert not any(isinstance(event, FailEvent) for event in events)
    stats = engine.stats()
    assert stats.held_blocks == stats.running_sequences == stats.waiting_sequences == 0
    assert stats.free_blocks + stats.cached_blocks == num_blocks


schedules = given(
    configs,
    st.integers(6, 12),
    st.lists(arrivals(), min_size=1, max_size=6),
    st.sampled_from((None, 2, 30)),
)
UNHURRIED = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@schedules
@settings(max_examples=1000, **UNHURRIED)
def test_every_survivor_says_what_it_says_alone(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], host_blocks: int | None
) -> None:
    check_one(config, num_blocks, plan, host_blocks)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@schedules
@settings(max_examples=10_000, **UNHURRIED)
def test_every_survivor_says_what_it_says_alone_ten_thousand_times(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], host_blocks: int | None
) -> None:
    check_one(config, num_blocks, plan, host_blocks)
