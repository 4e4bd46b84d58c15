"""Orders: who goes first, that a tier is worth what it says, and that nobody starves."""

import itertools
from collections.abc import Sequence as Rows

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedule.simulation import Clock, Job, Simulation
from vivace.schedule.orders.config import ORDER_NAMES, OrderConfig
from vivace.schedule.orders.fair import FairOrder
from vivace.schedule.orders.priority import overtaking_bound_s
from vivace.schedule.orders.table import ORDERS
from vivace.types.errors import ConfigError
from vivace.types.request import ServiceLevel


def started_order(jobs: Rows[Job], order: OrderConfig, **sizes: int) -> list[str]:
    """Names in the order they first ran, one sequence at a time unless told otherwise."""
    simulation = Simulation(order, **({"max_sequences": 1} | sizes))
    simulation.run(jobs)
    return simulation.started


def test_every_name_has_a_row() -> None:
    assert tuple(ORDERS) == ORDER_NAMES


def test_first_come_first_served() -> None:
    jobs = [Job(str(index), at_s=index * 0.01) for index in range(6)]
    assert started_order(jobs, OrderConfig("fcfs")) == list("012345")


def test_a_tier_is_worth_its_credit_and_no_more() -> None:
    jobs = [Job("first", 0.0), Job("low", 0.01), Job("soon", 4.0, ServiceLevel(tier=1)), Job("late", 6.0)]
    jobs += [Job("too late", 5.5, ServiceLevel(tier=1))]
    config = OrderConfig("fcfs", tier_credit_s=5.0)
    assert started_order(jobs, config, step_ms=1000) == ["first", "soon", "low", "too late", "late"]


def test_priority_takes_the_short_one_and_the_high_tier_first() -> None:
    jobs = [Job("running", 0.0, num_tokens=30), Job("long", 0.1, num_tokens=60), Job("short", 0.2, num_tokens=2)]
    jobs += [Job("boss", 0.3, ServiceLevel(tier=9), num_tokens=60)]
    config = OrderConfig("priority", tier_weight=2.0)
    assert started_order(jobs, config, warm_up_steps=32) == ["running", "boss", "short", "long"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 9), st.integers(1, 40)), min_size=2, max_size=25),
    st.floats(0.5, 3),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_nobody_is_overtaken_by_who_came_later_than_the_bound(
    arrivals: list[tuple[float, int, int]], alpha: float, beta: float, gamma: float
) -> None:
    config = OrderConfig(
        "priority", waiting_weight=alpha, completion_weight=beta, tier_weight=gamma, ageing_s=5.0, short_answer_s=1.0
    )
    jobs = [
        Job(str(index), at_s, ServiceLevel(tier=tier), num_tokens=num_tokens)
        for index, (at_s, tier, num_tokens) in enumerate(sorted(arrivals))
    ]
    order = started_order(jobs, config, warm_up_steps=32, step_ms=200)
    came = {job.name: job.at_s for job in jobs}
    for earlier, later in itertools.combinations(order, 2):
        assert (
            came[earlier] - came[later] <= overtaking_bound_s(config) + 0.21
        )  # a step: arrivals are seen between steps


def test_a_low_tier_is_served_while_high_ones_keep_coming() -> None:
    flood = [Job(f"high{index}", index * 0.5, ServiceLevel(tier=9), num_tokens=4) for index in range(200)]
    for kind in ("fcfs", "priority", "deadline"):
        simulation = Simulation(OrderConfig(kind, tier_credit_s=3.0, ageing_s=5.0), max_sequences=1, step_ms=150)
        simulation.run([*flood, Job("low", 1.0, num_tokens=4)])
        assert simulation.first_token_s["low"] < 60, kind


def test_the_nearest_deadline_goes_first() -> None:
    jobs = [Job("running", 0.0, num_tokens=9)]
    jobs += [Job("relaxed", 0.1, ServiceLevel(ttft_s=30)), Job("pressed", 0.2, ServiceLevel(ttft_s=3))]
    assert started_order(jobs, OrderConfig("deadline")) == ["running", "pressed", "relaxed"]


def test_who_is_too_late_lets_those_pass_that_can_still_be_met_until_their_patience_ends() -> None:
    jobs = [Job("running", 0.0, num_tokens=21), Job("missed", 0.1, ServiceLevel(ttft_s=1.0))]
    jobs += [Job("met", 1.9, ServiceLevel(ttft_s=1.0))]
    config = OrderConfig("deadline", patience=4.0)
    assert started_order(jobs, config, step_ms=100) == ["running", "met", "missed"]

    # the same, but the patience of the one that missed is over, and the other has time
    jobs[-1] = Job("met", 1.9, ServiceLevel(ttft_s=5.0))
    assert started_order(jobs, OrderConfig("deadline", patience=1.5), step_ms=100) == ["running", "missed", "met"]


def test_two_busy_tenants_get_equal_service_however_many_requests_one_sends() -> None:
    greedy = [Job(f"g{index}", 0.0, ServiceLevel(tenant="greedy"), num_tokens=20) for index in range(60)]
    modest = [Job(f"m{index}", index * 0.1, ServiceLevel(tenant="modest"), num_tokens=20) for index in range(20)]
    simulation = Simulation(OrderConfig("fair"), max_sequences=4)
    simulation.run([*greedy, *modest])
    first = simulation.started[:40]
    assert abs(sum(name.startswith("m") for name in first) - 20) <= 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2)), min_size=6, max_size=40))
def test_counters_of_tenants_with_work_waiting_stay_together(sizes: list[tuple[int, int, int]]) -> None:
    jobs = [
        Job(str(index), 0.0, ServiceLevel(tenant=str(tenant)), num_prompt=num_prompt, num_tokens=num_tokens)
        for index, (num_prompt, num_tokens, tenant) in enumerate(sizes)
    ]
    simulation = Simulation(OrderConfig("fair"), max_sequences=4, prefix_cache=False)
    order = simulation.scheduler.order
    assert isinstance(order, FairOrder)
    bound = 2 * max(60.0, 2.0 * 4 * 30)

    def look() -> None:
        waiting = {sequence.request.service_level.tenant for sequence in simulation.waiting}
        counters = [order.counters[tenant] for tenant in waiting]
        assert not counters or max(counters) - min(counters) <= bound

    simulation.run(jobs, after_step=look)
    assert not order._num_live


def test_a_tenant_gets_no_credit_for_having_been_away() -> None:
    busy = [Job(f"b{index}", 0.0, ServiceLevel(tenant="busy"), num_tokens=20) for index in range(40)]
    back = [Job(f"r{index}", 20.0, ServiceLevel(tenant="back"), num_tokens=20) for index in range(40)]
    simulation = Simulation(OrderConfig("fair"), max_sequences=2)
    simulation.run([*busy, *back])
    after = simulation.started[simulation.started.index("r0") :][:12]
    assert 4 <= sum(name.startswith("b") for name in after) <= 8


def test_a_tier_is_a_weight_of_its_tenant() -> None:
    plain = [Job(f"p{index}", 0.0, ServiceLevel(tenant="plain"), num_tokens=20) for index in range(60)]
    double = [Job(f"d{index}", 0.0, ServiceLevel(tenant="double", tier=1), num_tokens=20) for index in range(60)]
    simulation = Simulation(OrderConfig("fair"), max_sequences=3)
    simulation.run([*plain, *double])
    assert 25 <= sum(name.startswith("d") for name in simulation.started[:45]) <= 35


@pytest.mark.parametrize("kind", ORDER_NAMES)
def test_every_order_serves_everybody_with_scarce_blocks(kind: str) -> None:
    jobs = [
        Job(str(index), index * 0.05, ServiceLevel(tier=index % 3, tenant=str(index % 4)), 5 + index * 7 % 40, 30)
        for index in range(30)
    ]
    simulation = Simulation(OrderConfig(kind), num_blocks=16, max_sequences=6)
    simulation.run(jobs)
    assert len(simulation.finished) == 30
    assert simulation.scheduler.num_preemptions > 0


@pytest.mark.parametrize("fields", [{"kind": "best"}, {"waiting_weight": 0}, {"tier_credit_s": -1}])
def test_an_order_that_can_never_work_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        OrderConfig(**fields)  # type: ignore[arg-type]


def test_the_clock_of_the_simulation_moves() -> None:
    clock = Clock()
    clock.advance(1.5)
    assert clock() == 1_500_000_000
