"""Chats that come together and begin alike: what they share is computed once, and nobody before them waits for it."""

import pytest

from schedule.test_scheduler import counts, make_scheduler, step
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.scheduler import Scheduler
from vivace.types.request import GenerationRequest, ServiceLevel, StopParams

SYSTEM = tuple(range(1, 49))  # three blocks


def chat(name: str, question: int, system: tuple[int, ...] = SYSTEM, **level: object) -> GenerationRequest:
    prompt = (*system, *range(100 * question, 100 * question + 10))
    return GenerationRequest(
        name,
        prompt,
        stopping=StopParams(4, ignore_eos=True),
        service_level=ServiceLevel(**level),  # type: ignore[arg-type]
    )


def rows_until_idle(scheduler: Scheduler) -> int:
    rows = 0
    while scheduler.has_work:
        rows += sum(counts(step(scheduler)[0]))
    return rows


def test_a_burst_computes_what_its_chats_share_once() -> None:
    scheduler = make_scheduler(max_batch_tokens=256)
    for number in range(6):
        scheduler.add(chat(f"c{number}", 1 + number), seed=0)
    assert counts(step(scheduler)[0]) == [58]
    assert counts(step(scheduler)[0]) == [1, 10, 10, 10, 10, 10]
    assert rows_until_idle(scheduler) == 2 + 5 * 3


def test_a_long_prefix_in_chunks_is_waited_for_to_its_end() -> None:
    system = tuple(range(1, 193))
    scheduler = make_scheduler(max_batch_tokens=64)
    scheduler.add(chat("a", 1, system), seed=0)
    scheduler.add(chat("b", 2, system), seed=0)
    assert [counts(step(scheduler)[0]) for _ in range(5)] == [[64], [64], [64], [10, 10], [1, 1]]


def test_without_a_prefix_cache_or_with_little_to_share_nobody_waits() -> None:
    for scheduler, system in (
        (make_scheduler(max_batch_tokens=256, prefix_cache=False), SYSTEM),
        (make_scheduler(max_batch_tokens=256), SYSTEM[:20]),
    ):
        scheduler.add(chat("a", 1, system), seed=0)
        scheduler.add(chat("b", 2, system), seed=0)
        assert len(counts(step(scheduler)[0])) == 2


def test_tenants_do_not_wait_for_each_other() -> None:
    scheduler = make_scheduler(max_batch_tokens=256)
    scheduler.add(chat("a", 1, tenant="a"), seed=0)
    scheduler.add(chat("b", 2, tenant="b"), seed=0)
    assert counts(step(scheduler)[0]) == [58, 58]


def test_who_has_to_start_in_time_does_not_wait() -> None:
    scheduler = make_scheduler(max_batch_tokens=256)
    scheduler.add(chat("a", 1), seed=0)
    scheduler.add(chat("b", 2, queue_timeout_s=5.0), seed=0)
    assert counts(step(scheduler)[0]) == [58, 58]


def test_who_comes_first_in_order_does_not_wait_for_who_comes_after_it() -> None:
    scheduler = make_scheduler(max_batch_tokens=40, order=OrderConfig("priority"))
    scheduler.add(chat("low", 1, tier=0), seed=0)
    assert counts(step(scheduler)[0]) == [40]
    scheduler.add(chat("high", 2, tier=9), seed=0)
    plan, _ = step(scheduler)
    first = scheduler.running[plan.shares[0].sequence_id]
    assert first.request.request_id == "high"


@pytest.mark.parametrize("leaves", ["cancelled", "failed"])
def test_when_the_one_that_computes_it_leaves_the_next_one_does(leaves: str) -> None:
    scheduler = make_scheduler(max_batch_tokens=20)
    for number in range(3):
        scheduler.add(chat(f"c{number}", 1 + number), seed=0)
    assert counts(step(scheduler)[0]) == [20]
    assert len(scheduler.running) == 1
    if leaves == "cancelled":
        scheduler.cancel("c0")
    else:
        from vivace.types.errors import EngineError

        scheduler.fail("c0", EngineError("gone"))
    plan, _ = step(scheduler)
    assert scheduler.running[plan.shares[0].sequence_id].request.request_id == "c1"
    assert plan.shares[0].start == 16  # what was computed of it is found
    assert rows_until_idle(scheduler) < 2 * 58
