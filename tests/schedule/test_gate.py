"""The queue has limits, and what cannot be served in time is refused when it comes, with an estimate."""

import pytest

from schedule.simulation import Job, Simulation
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.queue_config import QueueConfig, TierTarget
from vivace.types.errors import ConfigError, OverloadedError, TenantLimitError
from vivace.types.events import FailEvent
from vivace.types.request import ServiceLevel


def busy(queue: QueueConfig = QueueConfig(), order: str = "fcfs", **sizes: object) -> Simulation:  # noqa: B008
    """One seat, taken by an answer of 100 tokens; 32 steps of 100 ms have been measured."""
    simulation = Simulation(OrderConfig(order), warm_up_steps=32, max_sequences=1, queue=queue, **sizes)  # type: ignore[arg-type]
    simulation.scheduler.add(Job("running", num_tokens=100).request(), seed=0)
    simulation.step()
    return simulation


def test_a_full_queue_refuses_with_a_time_to_come_again() -> None:
    simulation = busy(QueueConfig(max_waiting=2))
    for name in "ab":
        simulation.scheduler.add(Job(name).request(), seed=0)
    with pytest.raises(OverloadedError, match="full: 2 requests wait") as raised:
        simulation.scheduler.add(Job("c").request(), seed=0)
    assert raised.value.http_status == 503
    assert raised.value.retry_after_s > 5
    assert simulation.scheduler.gate.num_refused == 1
    assert simulation.scheduler.request_ids == ("running", "a", "b")
    simulation.run([])


def test_a_tenant_that_fills_the_queue_is_told_so_and_others_pass() -> None:
    simulation = busy(QueueConfig(max_waiting_per_tenant=1))
    simulation.scheduler.add(Job("a", level=ServiceLevel(tenant="t")).request(), seed=0)
    with pytest.raises(TenantLimitError) as raised:
        simulation.scheduler.add(Job("b", level=ServiceLevel(tenant="t")).request(), seed=0)
    assert raised.value.http_status == 429
    simulation.scheduler.add(Job("c", level=ServiceLevel(tenant="u")).request(), seed=0)


def test_a_target_that_cannot_be_met_is_refused_and_a_looser_one_is_met() -> None:
    simulation = busy()
    with pytest.raises(OverloadedError, match=r"expected in 10\.\d s and wanted within 5 s") as raised:
        simulation.scheduler.add(Job("pressed", level=ServiceLevel(ttft_s=5)).request(), seed=0)
    assert 4 <= raised.value.retry_after_s <= 6
    simulation.scheduler.add(Job("relaxed", level=ServiceLevel(ttft_s=12)).request(), seed=0)
    simulation.run([])
    assert simulation.first_token_s["relaxed"] <= 12


def test_the_target_of_the_server_stands_in_for_none() -> None:
    with pytest.raises(OverloadedError, match="wanted within 3 s"):
        busy(QueueConfig(ttft_s=3)).scheduler.add(Job("a").request(), seed=0)


def test_who_goes_first_is_not_refused_for_those_behind() -> None:
    simulation = busy(order="priority")
    for name in ("a", "b", "c"):
        simulation.scheduler.add(Job(name, num_tokens=100).request(), seed=0)
    level = ServiceLevel(tier=9, ttft_s=15)
    simulation.scheduler.add(Job("boss", level=level, num_tokens=2).request(), seed=0)
    simulation.run([])
    assert simulation.first_token_s["boss"] < 15


def test_the_forecast_is_right_on_a_steady_machine() -> None:
    simulation = busy()
    for _ in range(60):  # the history that lengths are learned from
        simulation.scheduler.estimates.completion.learn(Job("x").request(), 8, 8)
    for name in "abcd":
        simulation.scheduler.add(Job(name, num_tokens=8).request(), seed=0)
    forecast = simulation.scheduler.gate.last_forecast
    simulation.run([])
    assert forecast is not None
    assert forecast.first_token_s == pytest.approx(simulation.first_token_s["d"], rel=0.15)


def test_without_measurements_nobody_is_refused() -> None:
    simulation = Simulation(OrderConfig(), max_sequences=1)
    simulation.scheduler.add(Job("a", level=ServiceLevel(ttft_s=0.001)).request(), seed=0)
    assert simulation.scheduler.gate.last_forecast is None


def test_who_has_waited_too_long_is_ended_and_who_started_is_not() -> None:
    simulation = Simulation(OrderConfig(), max_sequences=1)
    scheduler = simulation.scheduler
    level = ServiceLevel(queue_timeout_s=2.0)
    for name in ("running", "waiting"):
        scheduler.add(Job(name, level=level, num_tokens=50).request(), seed=0)
    events = []
    for _ in range(25):
        events += scheduler.expire()
        simulation.step()
    (failed,) = events
    assert isinstance(failed, FailEvent) and failed.request_id == "waiting"
    assert isinstance(failed.error, OverloadedError) and "waited 2.0 s" in str(failed.error)
    assert scheduler.gate.num_timed_out == 1
    simulation.run([])
    assert simulation.finished == ["running"]


@pytest.mark.parametrize("fields", [{"max_waiting": 0}, {"ttft_s": -1.0}, {"queue_timeout_s": 0}])
def test_limits_that_can_never_work_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        QueueConfig(**fields)  # type: ignore[arg-type]


def test_a_tier_has_targets_of_its_own_behind_those_of_the_request() -> None:
    queue = QueueConfig(ttft_s=100, tier_targets=(TierTarget(3, ttft_s=2, inter_token_s=0.2, queue_timeout_s=50),))
    with pytest.raises(OverloadedError, match="wanted within 2 s"):
        busy(queue).scheduler.add(Job("a", level=ServiceLevel(tier=3)).request(), seed=0)
    simulation = busy(queue)
    simulation.scheduler.add(Job("b", level=ServiceLevel(tier=3, ttft_s=60)).request(), seed=0)
    simulation.scheduler.add(Job("c", level=ServiceLevel(tier=2)).request(), seed=0)
    b, c = (entry.request.service_level for entry in simulation.waiting)
    assert (b.ttft_s, b.inter_token_s, b.queue_timeout_s) == (60, 0.2, 50)
    assert (c.ttft_s, c.inter_token_s, c.queue_timeout_s) == (None, None, None)


@pytest.mark.parametrize("wrong", [{"tier": 10}, {"tier": 1, "ttft_s": 0}, {"tier": 1, "inter_token_s": float("inf")}])
def test_targets_that_can_never_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TierTarget(**wrong)  # type: ignore[arg-type]


def test_a_tier_has_its_targets_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        QueueConfig(tier_targets=(TierTarget(1, ttft_s=1), TierTarget(1, ttft_s=2)))
