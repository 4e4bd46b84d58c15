"""Networks that are late, cut, half close and drop: nothing lost, nothing doubled, one end for each request."""

import asyncio
import random

import pytest

from factories.fault_runs import PIECES, READERS, FaultPlan, ReadAnswer, Report, num_ended, read_many
from factories.faulty_proxy import FAULTS, GOES_ON, Fault, faulty_proxy
from factories.live_server import live_server
from factories.scripted_service import ScriptedService


def run_faults(read: ReadAnswer, plan: FaultPlan, num_faults: int) -> None:
    """Read answers until so many faults have happened, and hold the clients and the server to what is promised."""
    service, report = ScriptedService(PIECES, warm_up_passes=True), Report()
    with live_server(lambda: service) as server, faulty_proxy(server.port, plan) as proxy:
        asyncio.run(read_many(proxy.url, read, report, lambda: proxy.happened.total() < num_faults))
        ended, running = num_ended(server.url)
    assert proxy.happened.total() >= num_faults
    assert (report.num_interrupted, report.num_lost, report.num_doubled) == (0, 0, 0)
    assert report.ends == {1: report.num_answers}
    assert (ended, running) == (len(service.requests), 0)
    assert ended >= report.num_answers


@pytest.mark.parametrize("transport", READERS)
@pytest.mark.parametrize("kind", FAULTS)
def test_an_answer_survives_each_kind_of_fault(transport: str, kind: str) -> None:
    faults = [Fault(kind, 400 * number, 0.001 * (number % 2)) for number in range(4, 0, -1)]
    service = ScriptedService(PIECES, warm_up_passes=True)
    report = Report()
    with (
        live_server(lambda: service) as server,
        faulty_proxy(server.port, lambda: faults.pop() if faults else Fault()) as proxy,
    ):
        asyncio.run(read_many(proxy.url, READERS[transport], report, lambda: report.num_answers == 0, at_once=1))
    assert proxy.happened[kind] >= (1 if kind in GOES_ON else 3)
    assert (report.num_interrupted, report.ends) == (0, {1: 1})


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", READERS)
def test_two_thousand_faults_lose_and_double_nothing(transport: str) -> None:
    run_faults(READERS[transport], FaultPlan(random.Random(6)), 2000)
