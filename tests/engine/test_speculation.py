"""Drafts change the speed and never the text: random schedules, wrong and right guesses, stops, ends and forks."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.fake_executor import FakeExecutor
from engine.harness import GREEDY, failure_of, finish_of, make_request, run_to_end, tokens_alone, tokens_of
from engine.test_schedules import Arrival, Plan, ProgressWatch, arrivals, assert_same_as_alone, configs
from vivace.engine.core import Engine
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.speculator import EngineSpeculator
from vivace.types.draft import DecodeStep, DraftPlace, Speculator
from vivace.types.events import EngineEvent, FailEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams
from vivace.types.speculation import SpeculationUsage


class Oracle:
    """Knows what every request says alone, and gives as many right and wrong drafts as it likes."""

    def __init__(self, requests: Sequence[GenerationRequest], seed: int, max_drafts: int = 8) -> None:
        self.max_drafts = max_drafts
        self.num_proposed = 0
        self._random = random.Random(seed)
        self._texts = [
            [*request.prompt_ids, *answer] for request in requests for answer in tokens_alone(request).values()
        ]

    def propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> list[tuple[int, ...]]:
        proposals = []
        for place in places:
            assert place.max_drafts >= 0
            drafts = self._drafts(place.tokens.tolist(), min(place.max_drafts, budget))
            budget -= len(drafts)
            proposals.append(drafts)
        self.num_proposed += sum(map(len, proposals))
        return proposals

    def note_step(self, step: DecodeStep) -> None:
        assert step.num_rows >= step.num_streams > 0 and step.num_tokens > 0 and step.elapsed_ms >= 0

    def end(self, request_id: str, choice: int, num_generated: int) -> SpeculationUsage | None:
        assert num_generated >= 0
        return None

    def abandon(self, request_id: str) -> None:
        pass

    def report(self) -> SpeculationUsage:
        return SpeculationUsage()

    def close(self) -> None:
        pass

    def refuses(self, num_streams: int) -> bool:
        return False

    def rests(self, num_streams: int) -> bool:
        return False

    def _drafts(self, known: list[int], room: int) -> tuple[int, ...]:
        count = min(room, self._random.randrange(self.max_drafts + 1))
        rest = next((text[len(known) :] for text in self._texts if text[: len(known)] == known), [])
        drafts = (rest + [self._random.randrange(32) for _ in range(count)])[:count]
        if drafts and self._random.random() < 0.5:
            drafts[self._random.randrange(len(drafts))] = self._random.randrange(32)
        return tuple(drafts)


def play(config: SchedulerConfig, num_blocks: int, plan: list[Arrival], speculator: Speculator) -> list[EngineEvent]:
    """Run arrivals and cancels, checking the books after each step."""
    engine = Engine(FakeExecutor(num_blocks), config, speculator=speculator)
    watch, events = ProgressWatch(), []
    waiting = [(str(index), arrival) for index, arrival in enumerate(plan)]
    cancels: list[tuple[int, str, int | None]] = []
    for step in range(5000):
        for name, arrival in [pair for pair in waiting if pair[1].at <= step]:
            waiting.remove((name, arrival))
            fields = {name: getattr(arrival.request, name) for name in ("prompt_ids", "sampling", "stopping", "n")}
            engine.add(GenerationRequest(name, **fields))
            if arrival.cancel_after is not None:
                cancels.append((step + arrival.cancel_after, name, arrival.cancel_choice))
        for due, name, choice in cancels:
            if due == step:
                events += engine.cancel(name, choice)
        if not engine.has_work and not waiting:
            assert engine.stats().held_blocks == 0
            return events
        events += engine.step()
        engine.scheduler.check()
        watch.look(engine)
    raise AssertionError("starved")


UNHURRIED = {"deadline": None, "suppress_health_check": list(HealthCheck)}
schedules = given(
    configs,
    st.integers(6, 12),
    st.lists(arrivals(), min_size=1, max_size=6),
    st.integers(0, 1 << 30),
    st.integers(1, 16),
)


def check_schedule(config: SchedulerConfig, num_blocks: int, plan: list[Arrival], seed: int, most: int) -> None:
    oracle = Oracle([arrival.request for arrival in plan], seed, most)
    events = play(config, num_blocks, plan, oracle)
    assert_same_as_alone(Plan(tuple(plan), ()), events, has_local=False)
    assert not any(isinstance(event, FailEvent) for event in events)


@schedules
@settings(max_examples=600, **UNHURRIED)
def test_text_with_drafts_is_text_without(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], seed: int, most: int
) -> None:
    check_schedule(config, num_blocks, plan, seed, most)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@schedules
@settings(max_examples=10_000, **UNHURRIED)
def test_text_with_drafts_is_text_without_ten_thousand_times(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], seed: int, most: int
) -> None:
    check_schedule(config, num_blocks, plan, seed, most)


class CyclingExecutor(FakeExecutor):
    """Mostly goes from token t to (t + 1) mod 5, so that look-up has something to find."""

    def forward(self, batch):  # type: ignore[no-untyped-def]
        logits = super().forward(batch)
        for row, source in enumerate(batch.logit_rows.tolist()):
            logits[row, (int(batch.token_ids[source]) + 1) % 5] += 4
        return logits


@pytest.mark.parametrize("policy", ["fixed", "window", "measured"])
@pytest.mark.parametrize("proposers", [("ngram",), ("suffix",), ("ngram", "suffix")])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(seed=3, temperature=0.7, repetition_penalty=1.01)])
def test_the_real_speculator_changes_no_token(
    policy: str, proposers: tuple[str, ...], sampling: SamplingParams
) -> None:
    prompts = [[1, 2, 3, 4, 0] * 3, [7, 8, 9, 7, 8, 9, 7, 8], [5, 5, 5, 5, 5, 5]]
    requests = [
        make_request(f"r{index}", prompt=prompt, max_tokens=60, sampling=sampling, n=1 + index % 2)
        for index, prompt in enumerate(prompts * 2)
    ]
    told = []
    guessing = EngineSpeculator(SpeculationConfig(proposers, policy, 4), clock=lambda: 0)
    guessing.assume_costs(StepTimes({1: 1.0, 32: 1.0}))
    for speculator in (None, guessing):
        engine = Engine(CyclingExecutor(64), SchedulerConfig(), lambda: 0, speculator)  # no time: nothing is too dear
        events = []
        for request in requests:
            engine.add(request)
            events += engine.step() + engine.step()
        events += run_to_end(engine)
        told.append([tokens_of(events, request.request_id, k) for request in requests for k in range(request.n)])
        stats = engine.stats()
        assert stats.num_accepted_tokens <= stats.num_drafted_tokens
    assert told[0] == told[1]
    assert stats.num_accepted_tokens > 0


class Fixed:
    """Always the same drafts."""

    def __init__(self, *drafts: int) -> None:
        self.drafts, self.max_drafts = drafts, max(1, len(drafts))
        self.rooms: list[int] = []

    def propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> list[tuple[int, ...]]:
        self.rooms += [place.max_drafts for place in places]
        return [self.drafts[: min(place.max_drafts, budget)] for place in places]

    def note_step(self, step: DecodeStep) -> None:
        pass

    def end(self, request_id: str, choice: int, num_generated: int) -> SpeculationUsage | None:
        return None

    def abandon(self, request_id: str) -> None:
        pass

    def report(self) -> SpeculationUsage:
        return SpeculationUsage()

    def close(self) -> None:
        pass

    def refuses(self, num_streams: int) -> bool:
        return False

    def rests(self, num_streams: int) -> bool:
        return False


def run_cycle(request: GenerationRequest, speculator: Speculator | None) -> tuple[Engine, list[EngineEvent]]:
    engine = Engine(CyclingExecutor(), SchedulerConfig(), speculator=speculator)
    engine.add(request)
    return engine, run_to_end(engine)


def test_a_stop_token_among_accepted_drafts_ends_the_answer_there() -> None:
    request = make_request(prompt=(0, 1, 2), max_tokens=30, stop_token_ids=(4,))
    _, plain = run_cycle(request, None)
    engine, events = run_cycle(request, Fixed(4, 0, 1, 2))
    assert tokens_of(events) == tokens_of(plain) == [3]
    assert finish_of(events) == finish_of(plain)
    assert engine.stats().num_steps == 2


def test_drafts_never_reach_past_the_last_token() -> None:
    for max_tokens in range(1, 9):
        request = make_request(prompt=(0, 1, 2), max_tokens=max_tokens)
        _, plain = run_cycle(request, None)
        fixed = Fixed(4, 0, 1, 2)
        _, events = run_cycle(request, fixed)
        assert tokens_of(events) == tokens_of(plain) and len(tokens_of(events)) == max_tokens
        assert finish_of(events) == finish_of(plain)
        assert all(room < max_tokens for room in fixed.rooms)


def test_accepted_drafts_save_steps_and_are_counted() -> None:
    request = make_request(prompt=(0, 1, 2), max_tokens=26)
    plain, _ = run_cycle(request, None)
    engine, _ = run_cycle(request, Fixed(4, 0, 1, 2))
    assert (plain.stats().num_steps, plain.stats().num_drafted_tokens) == (26, 0)
    stats = engine.stats()
    assert (stats.num_steps, stats.num_drafted_tokens, stats.num_accepted_tokens) == (6, 20, 20)
    assert stats.num_generated_tokens == 26


def test_logprobs_of_accepted_drafts_are_their_own() -> None:
    request = make_request(prompt=(0, 1, 2), max_tokens=12, logprobs=3)
    told = []
    for speculator in (None, Fixed(4, 0, 1, 2)):
        _, events = run_cycle(request, speculator)
        told.append([event.logprob for event in events if isinstance(event, TokenEvent)])
    assert told[0] == told[1] and None not in told[0]


def test_a_failing_row_of_a_draft_fails_the_request_only_if_the_draft_stood() -> None:
    request = make_request(prompt=(0, 1, 2), max_tokens=12)
    for drafts, fails in (((9, 9), False), ((4, 0), True)):
        engine = Engine(CyclingExecutor(poison=drafts[0]), SchedulerConfig(), speculator=Fixed(*drafts))
        engine.add(request)
        events = run_to_end(engine)
        assert bool([event for event in events if isinstance(event, FailEvent)]) == fails
        if fails:
            failure_of(events)


def test_a_step_that_raises_leaves_no_draft_behind() -> None:
    def explode(batch) -> None:  # type: ignore[no-untyped-def]
        if len(batch.token_ids) > 3 and batch.positions[0] > 3:
            raise RuntimeError("boom")

    executor = CyclingExecutor(before_forward=explode)
    engine = Engine(executor, SchedulerConfig(), speculator=Fixed(4, 0, 1, 2))
    engine.add(make_request(prompt=(0, 1, 2), max_tokens=12))
    failure_of(run_to_end(engine))
    assert engine.stats().held_blocks == 0


def test_blocks_published_for_the_prefix_cache_hold_what_was_said() -> None:
    """A second turn that continues the first answer finds its blocks and says what it says without the cache."""
    first = make_request("first", prompt=(0, 1, 2), max_tokens=40)
    engine = Engine(CyclingExecutor(), SchedulerConfig(), speculator=Fixed(4, 0, 9, 2))
    engine.add(first)
    answer = tokens_of(run_to_end(engine), "first")
    second = make_request("second", prompt=(0, 1, 2, *answer, 7), max_tokens=10)
    engine.add(second)
    events = run_to_end(engine)
    assert finish_of(events, "second").num_cached_tokens >= 32
    fresh = Engine(CyclingExecutor(), SchedulerConfig(prefix_cache=False))
    fresh.add(second)
    assert tokens_of(events, "second") == tokens_of(run_to_end(fresh), "second")


def test_speculation_that_is_paused_and_goes_on_drafts_nothing_meanwhile_and_changes_no_text() -> None:
    request = make_request(prompt=(3, 1, 4), max_tokens=60, sampling=GREEDY)
    oracle = Oracle([request], seed=1)
    engine = Engine(FakeExecutor(64), SchedulerConfig(max_batch_tokens=128), speculator=oracle)
    engine.add(request)
    events, proposed = [], []
    for is_on in (True, False, True):
        engine.scheduler.set_speculation(is_on)
        for _ in range(4):
            events += engine.step()
        proposed.append(oracle.num_proposed)
    events += run_to_end(engine)
    assert proposed[0] == proposed[1] and 0 < proposed[0] < proposed[2]
    assert tokens_of(events) == tokens_alone(request)[0]
