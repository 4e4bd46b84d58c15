"""Streams far ahead of their readers make room for those about to stall and for newcomers."""

from schedule.simulation import Job, Simulation
from vivace.sample.settings import DrawSettings
from vivace.schedule.completion import CompletionEstimator
from vivace.schedule.estimates import Estimates
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.reader import ReaderOrder
from vivace.schedule.sequence import Sequence
from vivace.schedule.step_cost import StepCostModel
from vivace.telemetry.reading import quality_of_experience, stalled_s
from vivace.types.request import GenerationRequest, ServiceLevel

RATE = 5.0
READER = OrderConfig("reader", reading_tokens_per_s=RATE, reader_lead_s=2.0)


def test_a_stream_far_ahead_gives_its_seat_to_a_newcomer_and_does_not_stall() -> None:
    first = {}
    for order in (OrderConfig("fcfs"), READER):
        simulation = Simulation(order, max_sequences=1, step_ms=20)
        simulation.run([Job("long", 0.0, num_tokens=200), Job("new", 1.0, num_tokens=10)])
        first[order.kind] = simulation.first_token_s["new"]
        assert stalled_s(simulation.token_times_s["long"], RATE) < 1e-6
    assert first["fcfs"] > 3.5 and first["reader"] < 1.5


def test_alone_a_stream_runs_as_fast_as_it_can() -> None:
    simulation = Simulation(READER, max_sequences=4, step_ms=20)
    simulation.run([Job("a", 0.0, num_tokens=100), Job("b", 0.0, num_tokens=100)])
    assert simulation.clock.now_s < 2.2


def test_a_fast_reader_is_not_kept_waiting() -> None:
    simulation = Simulation(READER, max_sequences=1, step_ms=20)
    fast = ServiceLevel(reading_tokens_per_s=40)
    simulation.run([Job("fast", 0.0, fast, num_tokens=100), Job("slow", 0.5, num_tokens=50)])
    assert stalled_s(simulation.token_times_s["fast"], 40) < 0.5


def test_more_readers_are_happy_under_overload_than_first_come_first_served_makes() -> None:
    happy = {}
    for order in (OrderConfig("fcfs"), READER):
        simulation = Simulation(order, max_sequences=4, step_ms=20, row_ms=5)
        jobs = [Job(f"j{index}", index * 0.5, num_prompt=20 + index * 13 % 60, num_tokens=60) for index in range(40)]
        simulation.run(jobs)
        scores = [quality_of_experience(simulation.token_times_s[job.name], job.at_s, RATE, ttft_s=2.0) for job in jobs]
        happy[order.kind] = sum(score >= 0.9 for score in scores)
    assert happy["reader"] > happy["fcfs"]


def test_everybody_is_served_when_all_readers_are_far_ahead() -> None:
    simulation = Simulation(READER, max_sequences=2, step_ms=1)
    simulation.run([Job(f"j{index}", 0.0, num_tokens=300) for index in range(6)])
    assert len(simulation.finished) == 6


def test_a_stream_whose_client_takes_nothing_leaves_its_seat_to_others() -> None:
    """The order assumes that text is read; where the connection says otherwise it believes the connection."""
    first = {}
    for is_told in (False, True):
        simulation = Simulation(READER, max_sequences=1, step_ms=400)  # slower than the reader: no lead is assumed

        def tell(simulation: Simulation = simulation, is_told: bool = is_told) -> None:
            if is_told and simulation.scheduler.is_live("stuck"):
                simulation.scheduler.note_reader("stuck", 30.0, is_all=False)

        simulation.run([Job("stuck", 0.0, num_tokens=60), Job("new", 2.0, num_tokens=10)], tell)
        first[is_told] = simulation.first_token_s["new"]
        assert len(simulation.token_times_s["stuck"]) == 60
    assert first[False] > 20 and first[True] < 5


def test_a_reader_who_says_what_is_left_is_believed_both_ways() -> None:
    simulation = Simulation(READER, max_sequences=2, step_ms=20)
    for job in (Job("a", num_tokens=100), Job("b", num_tokens=100)):
        simulation.scheduler.add(job.request(), seed=0)
    for _ in range(30):
        simulation.step()
    order, (a, b) = simulation.scheduler.order, simulation.scheduler.running.values()
    now_s = simulation.clock.now_s
    simulation.scheduler.note_reader("a", 0.5, is_all=True)
    simulation.scheduler.note_reader("b", 0.5, is_all=False)
    simulation.scheduler.note_reader("nobody", 0.5, is_all=True)
    assert not order.may_rest(a, now_s) and order.may_rest(b, now_s)
    assert order.rank(a, now_s) < order.rank(b, now_s)


def test_nobody_rests_on_blocks_that_others_wait_for() -> None:
    """Who is far ahead of its reader goes on beside one that is not, and so is through sooner."""
    simulation = Simulation(READER, max_sequences=8, step_ms=20, num_blocks=18)
    hungry = Job("hungry", 0.0, ServiceLevel(reading_tokens_per_s=1000), num_prompt=8, num_tokens=120)
    ahead = Job("ahead", 0.0, num_prompt=8, num_tokens=100)
    simulation.run([ahead, hungry, Job("large", 0.5, num_prompt=260, num_tokens=4)])
    last, first = simulation.token_times_s["ahead"][-1], simulation.token_times_s["large"][0]
    assert 2 < last < 2.4 < first < 3


def test_a_reader_of_a_long_answer_forgives_a_later_beginning() -> None:
    order = ReaderOrder(READER, Estimates(StepCostModel(), CompletionEstimator()), 0.1)
    short, long = (make_waiting(number, expected) for number, expected in enumerate((10.0, 400.0)))
    assert order.rank(short, 2.05) < order.rank(long, 2.05), "less slack"
    assert order.rank(long, 3.0)[0] < order.rank(short, 3.0)[0], "for one of them it is too late"


def make_waiting(number: int, expected_tokens: float) -> Sequence:
    request = GenerationRequest(str(number), (1, 2, 3))
    sequence = Sequence(number, request, (number, 0), DrawSettings(request.sampling, 0), frozenset(), 500)
    sequence.expected_tokens = expected_tokens
    return sequence
