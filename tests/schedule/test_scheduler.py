"""Shares, budgets, admission, forks and pre-emption, decided without any model."""

import pytest

from vivace.cache.block_pool import BlockPool
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.scheduler import Scheduler
from vivace.types.errors import ConfigError, ContextLengthError, EngineError, RequestError
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, TokenEvent
from vivace.types.place import RequestPlace
from vivace.types.request import GenerationRequest, StopParams
from vivace.types.step import Draw, StepPlan, StepResult

EOS = 0


def make_scheduler(num_blocks: int = 64, **sizes: object) -> Scheduler:
    fields = {"max_batch_tokens": 64, "max_sequences": 8, "eos_ids": frozenset({EOS})} | sizes
    return Scheduler(SchedulerConfig(**fields), BlockPool(num_blocks))  # type: ignore[arg-type]


def make_request(
    name: str, num_prompt: int, max_tokens: int | None = 100, first: int = 1, **others: object
) -> GenerationRequest:
    prompt = tuple(first + position % 50 for position in range(num_prompt))
    stop_fields = {key: others.pop(key) for key in ("stop_token_ids", "ignore_eos") if key in others}
    return GenerationRequest(name, prompt, stopping=StopParams(max_tokens, **stop_fields), **others)  # type: ignore[arg-type]


def step(scheduler: Scheduler, token: int = 9) -> tuple[StepPlan, list[EngineEvent]]:
    """One step in which every row of logits draws `token`."""
    plan = scheduler.schedule()
    events = scheduler.commit(plan, StepResult(tuple(Draw(token) for share in plan.shares if share.wants_logits)))
    scheduler.check()
    return plan, events


def counts(plan: StepPlan) -> list[int]:
    return [share.count for share in plan.shares]


def test_a_prompt_is_cut_into_chunks_and_only_the_last_wants_logits() -> None:
    scheduler = make_scheduler(max_chunk_tokens=20)
    scheduler.add(make_request("a", 50), seed=0)
    shares = [step(scheduler)[0].shares[0] for _ in range(4)]
    assert [(share.start, share.count, share.wants_logits) for share in shares] == [
        (0, 20, False),
        (20, 20, False),
        (40, 10, True),
        (50, 1, True),
    ]


def test_streams_come_first_and_a_long_prompt_advances_in_every_step() -> None:
    scheduler = make_scheduler(max_prompt_tokens_beside_streams=10)
    for name in "abc":
        scheduler.add(make_request(name, 5), seed=0)
    step(scheduler)
    scheduler.add(make_request("long", 100), seed=0)
    for number in range(10):
        plan, events = step(scheduler)
        assert counts(plan) == [1, 1, 1, 10]
        assert plan.shares[-1].start == 10 * number
        assert len([event for event in events if isinstance(event, TokenEvent)]) == 3 + (number == 9)


def test_the_budget_of_a_step_is_kept_and_prompts_are_read_in_order() -> None:
    scheduler = make_scheduler(max_batch_tokens=64)
    for number, name in enumerate("abc"):
        scheduler.add(make_request(name, 40, first=1 + 50 * number), seed=0)
    assert counts(step(scheduler)[0]) == [40, 24]
    assert counts(step(scheduler)[0]) == [1, 16, 40]


def test_no_more_sequences_run_than_allowed() -> None:
    scheduler = make_scheduler(max_sequences=2)
    for name in "abc":
        scheduler.add(make_request(name, 4, max_tokens=2), seed=0)
    assert len(step(scheduler)[0].shares) == 2
    step(scheduler)
    assert len(step(scheduler)[0].shares) == 1
    assert scheduler.num_waiting == 0


@pytest.mark.parametrize(
    ("fields", "token", "reason", "num_events"),
    [
        ({}, EOS, "stop", 1),
        ({"ignore_eos": True, "max_tokens": 1}, EOS, "length", 2),
        ({"stop_token_ids": (33,)}, 33, "stop", 1),
        ({"max_tokens": 1}, 9, "length", 2),
    ],
)
def test_how_an_answer_ends(fields: dict[str, object], token: int, reason: str, num_events: int) -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 3, **fields), seed=0)  # type: ignore[arg-type]
    _, events = step(scheduler, token)
    assert len(events) == num_events
    assert events[-1] == FinishEvent("a", 0, reason, num_prompt_tokens=3, num_generated=1)  # type: ignore[arg-type]
    assert not scheduler.has_work
    assert scheduler.schedule() == StepPlan(())


def test_without_max_tokens_the_answer_ends_with_the_context() -> None:
    scheduler = make_scheduler(context_length=20)
    scheduler.add(make_request("a", 15, max_tokens=None), seed=0)
    events = [event for _ in range(5) for event in step(scheduler)[1]]
    assert isinstance(events[-1], FinishEvent)
    assert (events[-1].reason, events[-1].num_generated) == ("length", 5)


@pytest.mark.parametrize(("num_prompt", "max_tokens"), [(20, None), (15, 6), (30, 1)])
def test_what_can_never_fit_is_refused_with_numbers(num_prompt: int, max_tokens: int | None) -> None:
    with pytest.raises(ContextLengthError, match=rf"{num_prompt} tokens.*20"):
        make_scheduler(context_length=20).add(make_request("a", num_prompt, max_tokens), seed=0)
    with pytest.raises(ContextLengthError, match="17"):
        make_scheduler(num_blocks=1).add(make_request("a", 17, 1), seed=0)


def test_the_last_token_of_an_answer_needs_no_slot() -> None:
    scheduler = make_scheduler(num_blocks=1)
    scheduler.add(make_request("a", 15, max_tokens=2), seed=0)
    events = [event for _ in range(2) for event in step(scheduler)[1]]
    assert isinstance(events[-1], FinishEvent)


def test_two_requests_of_one_id_are_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 3), seed=0)
    with pytest.raises(RequestError, match="in work"):
        scheduler.add(make_request("a", 3), seed=0)


def test_choices_share_the_blocks_of_their_prompt_and_copy_the_last() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 40, n=3), seed=0)
    plan, events = step(scheduler)
    assert counts(plan) == [40]
    assert [event.choice for event in events if isinstance(event, TokenEvent)] == [0]
    plan, events = step(scheduler)
    assert [(share.start, share.count) for share in plan.shares] == [(40, 1), (39, 1), (39, 1)]
    assert sorted(event.choice for event in events if isinstance(event, TokenEvent)) == [0, 1, 2]
    tables = [sequence.table.entries.tolist() for sequence in scheduler.running.values()]
    assert tables[0][:2] == tables[1][:2] == tables[2][:2]
    assert len({table[2] for table in tables}) == 3
    assert plan.block_copies == ((tables[0][2], tables[1][2]), (tables[0][2], tables[2][2]))


def test_choices_share_everything_when_the_prompt_ends_a_token_after_a_block() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 33, n=2), seed=0)
    step(scheduler)
    plan, _ = step(scheduler)
    assert plan.block_copies == ()
    assert [(share.start, share.count) for share in plan.shares] == [(33, 1), (32, 1)]


def test_choices_without_room_wait_and_read_the_prompt_again() -> None:
    scheduler = make_scheduler(max_sequences=1, prefix_cache=False)
    scheduler.add(make_request("a", 40, max_tokens=2, n=2), seed=0)
    assert [counts(step(scheduler)[0]) for _ in range(4)] == [[40], [1], [40], [1]]


def test_cancelling_the_first_choice_early_lets_the_others_go_on_alone() -> None:
    scheduler = make_scheduler(max_chunk_tokens=16)
    scheduler.add(make_request("a", 40, max_tokens=1, n=2), seed=0)
    step(scheduler)
    (cancelled,) = scheduler.cancel("a", 0)
    assert isinstance(cancelled, FinishEvent) and (cancelled.choice, cancelled.reason) == (0, "cancelled")
    events = [event for _ in range(3) for event in step(scheduler)[1]]
    assert [event.choice for event in events] == [1, 1]
    assert not scheduler.has_work


def test_a_cancel_frees_everything_at_once_and_tells_each_choice() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 40, n=3), seed=0)
    step(scheduler)
    assert [event.choice for event in scheduler.cancel("a")] == [0, 1, 2]
    assert scheduler.cancel("a") == [] == scheduler.cancel("unknown")
    scheduler.check()
    assert not scheduler.has_work and not scheduler.running


def test_a_row_that_cannot_be_drawn_from_fails_its_whole_request_and_no_other() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 3, n=2), seed=0)
    scheduler.add(make_request("b", 3, first=7), seed=0)
    step(scheduler)
    plan = scheduler.schedule()
    error = EngineError("NaN")
    draws = [
        Draw(-1, error=error) if scheduler.running[share.sequence_id].choice == 1 else Draw(9) for share in plan.shares
    ]
    events = scheduler.commit(plan, StepResult(tuple(draws)))
    scheduler.check()
    assert [event for event in events if isinstance(event, FailEvent)] == [FailEvent("a", error)]
    assert scheduler.request_ids == ("b",)


def test_a_known_prefix_is_found_and_the_last_token_is_always_computed() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 32, max_tokens=1), seed=0)
    step(scheduler)
    scheduler.add(make_request("b", 32, max_tokens=1), seed=0)
    plan, events = step(scheduler)
    assert [(share.start, share.count) for share in plan.shares] == [(16, 16)]
    assert isinstance(events[-1], FinishEvent) and events[-1].num_cached_tokens == 16
    scheduler.add(make_request("c", 33, max_tokens=1), seed=0)
    assert [(share.start, share.count) for share in step(scheduler)[0].shares] == [(32, 1)]


def test_the_answer_of_one_turn_is_found_by_the_next() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 20, max_tokens=20), seed=0)
    events = [event for _ in range(20) for event in step(scheduler)[1]]
    answer = [event.token_id for event in events if isinstance(event, TokenEvent)]
    prompt = (*make_request("a", 20).prompt_ids, *answer, 3, 4)
    scheduler.add(GenerationRequest("b", prompt, stopping=StopParams(1)), seed=0)
    assert step(scheduler)[0].shares[0].start == 32


def test_forgotten_prefixes_are_not_found() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 32, max_tokens=1), seed=0)
    step(scheduler)
    scheduler.forget_prefixes()
    scheduler.add(make_request("b", 32, max_tokens=1), seed=0)
    assert step(scheduler)[0].shares[0].start == 0


def test_the_newest_gives_way_when_blocks_run_out_and_comes_back() -> None:
    scheduler = make_scheduler(num_blocks=6, prefix_cache=False)
    scheduler.add(make_request("old", 30, max_tokens=50), seed=0)
    scheduler.add(make_request("new", 20, max_tokens=40), seed=0)
    known_when_preempted = None
    finished: list[str] = []
    for _ in range(200):
        before = scheduler.num_preemptions
        _, events = step(scheduler)
        finished += [event.request_id for event in events if isinstance(event, FinishEvent)]
        if scheduler.num_preemptions > before:
            (left,) = scheduler.running.values()
            assert left.request.request_id == "old"
            known_when_preempted = left.num_known
        if not scheduler.has_work:
            break
    assert known_when_preempted is not None
    assert finished == ["old", "new"]
    assert scheduler.num_preemptions < 4


def test_a_newcomer_waits_rather_than_push_out_who_runs() -> None:
    scheduler = make_scheduler(num_blocks=4)
    scheduler.add(make_request("a", 30, max_tokens=30), seed=0)
    step(scheduler)
    scheduler.add(make_request("b", 17, max_tokens=10, first=5), seed=0)
    step(scheduler)
    assert [sequence.request.request_id for sequence in scheduler.running.values()] == ["a"]
    assert scheduler.num_waiting == 1


@pytest.mark.parametrize(
    "sizes", [{"max_sequences": 0}, {"max_chunk_tokens": 0}, {"max_batch_tokens": 8, "max_sequences": 8}]
)
def test_sizes_that_can_never_work_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SchedulerConfig(**sizes)


def test_a_request_is_told_its_place_in_the_queue_and_how_far_its_prompt_is() -> None:
    scheduler = make_scheduler(max_sequences=1, max_chunk_tokens=20)
    for first, name in enumerate("abc"):
        scheduler.add(make_request(name, 50, first=first), seed=0)
    places = [scheduler.place_of(name) for name in "abc"]
    assert [place and (place.position, place.num_computed) for place in places] == [(1, 0), (2, 0), (3, 0)]
    assert scheduler.place_of("d") is None
    step(scheduler)
    assert scheduler.place_of("a") == RequestPlace(0, 0.0, 50, 20)
    scheduler.note_step(step(scheduler)[0], 5.0)
    step(scheduler)
    third = scheduler.place_of("c")
    assert third is not None
    assert third.position == 2
    scheduler.cancel("a")
    step(scheduler)
    assert scheduler.place_of("a") is None
    assert scheduler.place_of("b") == RequestPlace(0, 0.0, 50, 20)
