"""The same text, always: whatever the company, chunks, cache, forks, cancels, pre-emptions, spills and restores."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.harness import finish_of, tokens_alone, tokens_of
from engine.relaying_executor import RelayingExecutor
from vivace.cache.block_file import _HEADER
from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers, LocalMemory
from vivace.engine.core import Engine
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.orders.config import ORDER_NAMES, OrderConfig
from vivace.schedule.sequence import Sequence
from vivace.types.events import EngineEvent, FailEvent
from vivace.types.request import GenerationRequest, SamplingParams, ServiceLevel, StopParams
from vivace.types.step import BlockContent

NUM_KINDS = 17  # of things that have to happen, see `note`
ROUNDS = 4
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


@dataclass(frozen=True)
class Errand:
    """At a step the prefix of a request is pinned on disk (`save`), or brought back before it is asked (`restore`)."""

    kind: str
    at: int
    which: int


@dataclass(frozen=True)
class Layout:
    """Blocks of the pool, of local layers (0: none have their own), in host memory and on disk (None: no such tier)."""

    num_blocks: int
    num_local: int
    host: int | None
    disk: int | None


@dataclass(frozen=True)
class Plan:
    """What happens. Of the steps that may begin by themselves, one in `hold_every` is held back (0: none begins so)."""

    arrivals: tuple[Arrival, ...]
    errands: tuple[Errand, ...]

    @property
    def hold_every(self) -> int:
        return (0, 2, 5, 1000)[sum(arrival.at for arrival in self.arrivals) % 4]


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    """Prompts of one family share all but their end, so that prefixes are found; families share all but their start."""
    family, own = draw(st.sampled_from((0, 0, 0, 1))), draw(st.integers(0, 2))
    length = draw(st.one_of(st.integers(1, 38), st.sampled_from((33, 48, 49))))
    prompt = (family, *(position * 7 % 31 for position in range(length)), *((31,) * own))
    n, stops = draw(st.sampled_from((1, 1, 2, 3))), draw(st.sampled_from(((), (), (5, 6))))
    request = GenerationRequest(
        request_id="",
        prompt_ids=prompt,
        sampling=draw(st.sampled_from(KINDS)),
        stopping=StopParams(draw(st.sampled_from((1, 4, 20, 45))), stop_token_ids=stops),
        n=n,
        service_level=ServiceLevel(tier=draw(st.integers(0, 2)), tenant=draw(st.sampled_from(("", "", "", "a")))),
    )
    cancel_after = draw(st.sampled_from((None, None, None, None, 0, 1, 3, 9)))
    return Arrival(
        request, draw(st.sampled_from((0, 1, 3, 8, 20, 50, 90))), cancel_after, draw(st.sampled_from((None, 0, n - 1)))
    )


configs = st.builds(
    SchedulerConfig,
    max_batch_tokens=st.sampled_from((7, 9, 20, 64)),
    max_sequences=st.integers(1, 6),
    max_chunk_tokens=st.sampled_from((1, 3, 7, 16, 64)),
    max_prompt_tokens_beside_streams=st.sampled_from((1, 5, 64)),
    prefix_cache=st.sampled_from((True, True, True, False)),
    order=st.sampled_from([OrderConfig(kind, ageing_s=0.01, tier_credit_s=0.01) for kind in ORDER_NAMES]),
    inter_token_s=st.sampled_from((1e-6, 1e-3, 0.1)),
)


layouts = st.builds(
    Layout,
    st.sampled_from((6, 7, 8, 9, 10, 12, 20)),
    st.sampled_from((0, 6, 9, 20)),
    st.sampled_from((None, 0, 2, 30)),
    st.sampled_from((None, None, 4, 60)),
)
plans = st.builds(
    Plan,
    st.lists(arrivals(), min_size=2, max_size=7).map(tuple),
    st.lists(
        st.builds(
            Errand,
            st.sampled_from(("save", "restore", "restore")),
            st.sampled_from((2, 9, 30, 60, 88)),
            st.integers(0, 5),
        ),
        max_size=6,
    ).map(tuple),
)


@lru_cache(maxsize=5000)
def _alone(request: GenerationRequest, has_local: bool) -> dict[int, list[int]]:
    return tokens_alone(request, num_local_blocks=64 * has_local)


class ProgressWatch:
    """A pre-empted sequence must know more before it is pre-empted again."""

    def __init__(self) -> None:
        self._running: dict[int, Sequence] = {}
        self._known_when_preempted: dict[int, int] = {}

    def look(self, engine: Engine) -> None:
        for sequence_id, sequence in self._running.items():
            if sequence_id not in engine.scheduler.running and sequence.num_computed == 0:
                self._note(sequence)
        self._running = dict(engine.scheduler.running)

    def _note(self, sequence: Sequence) -> None:
        if sequence.state.name != "WAITING":
            return
        before = self._known_when_preempted.get(sequence.sequence_id, 0)
        assert sequence.num_known > before, "pre-empted twice without progress"
        self._known_when_preempted[sequence.sequence_id] = sequence.num_known


class World:
    """An engine on a fake executor with tiers, and what of its prefixes is pinned on disk."""

    def __init__(self, config: SchedulerConfig, layout: Layout, folder: Path) -> None:
        is_eager = layout.num_blocks % 2 == 0
        self.executor = RelayingExecutor(layout.num_blocks, num_local_blocks=layout.num_local, is_eager=is_eager)
        size = self.executor.bytes_per_block
        self.disk = None
        if layout.disk is not None:
            self.disk = DiskTier(folder, b"f" * 16, (size,), layout.disk * (size + _HEADER.size))
        tiers = None
        if layout.host is not None or self.disk is not None:
            local = LocalMemory(self.executor) if layout.num_local else None
            tiers = BlockTiers(self.executor, (layout.host or 0) * size, self.disk, clock=lambda: 0, local=local)
        self.engine = Engine(self.executor, config, tiers=tiers, local=self.executor.local_layers)
        self.pinned: list[bytes] = []
        self.num_restored = 0

    def settle(self) -> None:
        """Let the disk's thread catch up, so that a schedule always runs the same way."""
        if self.disk is not None and self.disk.num_unwritten:
            self.disk.flush()

    def save(self, request: GenerationRequest) -> int:
        """Pin a prefix; returns how many of its blocks."""
        if self.disk is None:
            return 0
        names, num_blocks = self.engine.keep_on_disk(request)
        self.pinned += names
        return num_blocks

    def restore(self, request: GenerationRequest) -> None:
        """As for a session that is restored or a hint."""
        come: list[dict[bytes, BlockContent]] = []
        if self.engine.read_ahead(request, come.append):
            assert self.disk is not None
            self.disk.flush()
        self.num_restored += self.engine.preload(request, come[0] if come else {})
        self.engine.scheduler.check()


@contextmanager
def world(config: SchedulerConfig, layout: Layout, folder: Path) -> Iterator[World]:
    made = World(config, layout, folder)
    try:
        yield made
    finally:
        made.engine.close()


def comes_at(plan: Plan, cancels: list[tuple[int, str, int | None]], step: int) -> bool:
    """Whether anything is asked of the engine before a step."""
    return any(one.at == step for one in (*plan.arrivals, *plan.errands)) or any(due == step for due, _, _ in cancels)


def asker(may: bool, engine: Engine, is_held: bool) -> Callable[[], bool]:
    """What an engine asks before it runs ahead; with a `hold` right after the last time it asks."""

    answers = iter((may, may))

    def answer() -> bool:
        told = next(answers)
        if is_held:
            engine.hold()
        return told

    return answer


def play(made: World, plan: Plan) -> list[EngineEvent]:
    """Run arrivals, cancels and errands, checking the books after each step."""
    engine, watch = made.engine, ProgressWatch()
    events: list[EngineEvent] = []
    waiting = {str(index): arrival for index, arrival in enumerate(plan.arrivals)}
    cancels: list[tuple[int, str, int | None]] = []
    last_errand = max((errand.at for errand in plan.errands), default=0)
    for step in range(5000):
        for name, arrival in list(waiting.items()):
            if arrival.at <= step:
                engine.add(replace(waiting.pop(name).request, request_id=name))
                if arrival.cancel_after is not None:
                    cancels.append((step + arrival.cancel_after, name, arrival.cancel_choice))
        for due, name, choice in cancels:
            if due == step:
                events += engine.cancel(name, choice)
        for errand in plan.errands:
            if errand.at == step:
                getattr(made, errand.kind)(plan.arrivals[errand.which % len(plan.arrivals)].request)
        if not engine.has_work:
            if not waiting and step >= last_errand:
                return events
            continue
        is_held = plan.hold_every > 0 and step % plan.hold_every == 1
        may_run_ahead = plan.hold_every > 0 and not comes_at(plan, cancels, step + 1)
        events += engine.step(may_run_ahead=asker(may_run_ahead, engine, is_held))
        made.settle()
        engine.scheduler.check()
        watch.look(engine)
    raise AssertionError("starved")


def assert_same_as_alone(plan: Plan, events: list[EngineEvent], has_local: bool) -> None:
    assert not any(isinstance(event, FailEvent) for event in events)
    for index, arrival in enumerate(plan.arrivals):
        alone = _alone(arrival.request, has_local)
        for choice in range(arrival.request.n):
            tokens = tokens_of(events, str(index), choice)
            finish = finish_of(events, str(index), choice)
            if finish.reason == "cancelled":
                assert tokens == alone[choice][: len(tokens)]
            else:
                assert tokens == alone[choice]
            assert finish.num_generated == len(tokens) + (finish.reason == "stop")


def assert_nothing_is_held(made: World, layout: Layout) -> None:
    stats = made.engine.stats()
    assert stats.held_blocks == stats.held_local_blocks == stats.running_sequences == stats.waiting_sequences == 0
    assert stats.free_blocks + stats.cached_blocks == layout.num_blocks


def check_one(config: SchedulerConfig, layout: Layout, plan: Plan, seen: Counter[str]) -> None:
    """A schedule; and where something was saved, its prompts again after a restart."""
    with nullcontext("") if layout.disk is None else tempfile.TemporaryDirectory() as folder:
        with world(config, layout, Path(folder)) as first:
            assert_same_as_alone(plan, play(first, plan), bool(layout.num_local))
            assert_nothing_is_held(first, layout)
            note(first, layout, seen)
        if not first.pinned:
            return
        with world(config, layout, Path(folder)) as second:
            errands = tuple(Errand("restore", 0, each.which) for each in plan.errands)
            again = Plan(plan.arrivals, errands)
            assert second.disk is not None
            second.disk.pin(first.pinned)
            assert_same_as_alone(plan, play(second, again), bool(layout.num_local))
            assert_nothing_is_held(second, layout)
            seen["restored after a restart"] += second.num_restored > 0
            note(second, layout, seen)
            second.disk.unpin(first.pinned, forget=True)
            assert second.disk.num_pinned == 0


def note(made: World, layout: Layout, seen: Counter[str]) -> None:
    """Count what has happened, for a suite in which nothing happens shows nothing."""
    stats = made.engine.stats()
    seen["ran ahead"] += made.executor.num_relayed > 0
    seen["ran ahead, pre-empted"] += made.executor.num_relayed > 0 and stats.num_preemptions > 0
    seen["ran ahead with local layers"] += made.executor.num_relayed > 0 and layout.num_local > 0
    seen["pre-empted"] += stats.num_preemptions > 0
    seen["found"] += stats.num_cached_tokens > 0
    seen["saved"] += bool(made.pinned)
    if stats.tiers is None:
        return
    for name in ("num_spilled", "num_from_host", "num_from_disk", "num_preloaded", "num_preload_hits"):
        seen[name] += getattr(stats.tiers, name) > 0
        seen[f"{name} with local layers"] += bool(layout.num_local) and getattr(stats.tiers, name) > 0


def check_many(num_schedules: int) -> None:
    seen: Counter[str] = Counter()

    @given(configs, layouts, plans)
    @settings(max_examples=num_schedules, deadline=None, suppress_health_check=list(HealthCheck))
    def check(config: SchedulerConfig, layout: Layout, plan: Plan) -> None:
        check_one(config, layout, plan, seen)

    for _ in range(ROUNDS):  # schedules are drawn anew each time, and the rarest things do not happen in all of them
        check()
        if len(seen) == NUM_KINDS and min(seen.values()) >= num_schedules / 300:
            return
    raise AssertionError(dict(seen))


def test_every_survivor_says_what_it_says_alone() -> None:
    check_many(250)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(4))
def test_every_survivor_says_what_it_says_alone_ten_thousand_times(part: int) -> None:
    check_many(2500)
