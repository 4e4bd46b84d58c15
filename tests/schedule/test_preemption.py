"""Whom pre-emption takes: of the later half in order, who loses least for the blocks it frees."""

from schedule.simulation import Job, Simulation
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.preemption import Loss, choose_victim
from vivace.schedule.sequence import Sequence


def running(simulation: Simulation) -> dict[str, Sequence]:
    return {entry.request.request_id: entry for entry in simulation.scheduler.running.values()}


def test_the_earlier_half_never_pays_for_the_later_one() -> None:
    simulation = Simulation(OrderConfig(), max_sequences=6)
    for index in range(5):
        simulation.scheduler.add(Job(f"job{index}").request(), seed=0)
    simulation.step()
    in_order = sorted(running(simulation).values(), key=lambda entry: entry.order)
    prices = {0: 1.0, 1: 1.0, 2: 9.0, 3: 4.0, 4: 5.0}
    victim = choose_victim(in_order, lambda entry: Loss(prices[entry.order[0]], 1))
    assert victim.order[0] == 3
    assert choose_victim(in_order, lambda entry: Loss(1.0, 1)).order[0] == 4, "equal prices: the last in order"
    assert choose_victim(in_order[:1], lambda entry: Loss(1.0, 0)).order[0] == 0


def test_who_has_computed_little_for_its_blocks_is_cheaper_than_who_has_computed_much() -> None:
    simulation = Simulation(OrderConfig(), num_blocks=40, row_ms=1.0, warm_up_steps=32, max_batch_tokens=600)
    for name, num_prompt in (("first", 4), ("aged", 4), ("long", 300), ("short", 17)):
        simulation.scheduler.add(Job(name, num_prompt=num_prompt, num_tokens=200).request(), seed=0)
    for _ in range(3):
        simulation.step()
    loss = simulation.scheduler.blocks.loss_of
    entries = running(simulation)
    assert loss(entries["long"]).seconds > loss(entries["short"]).seconds
    assert loss(entries["long"]).num_freed == 19 and loss(entries["short"]).num_freed == 2
    assert loss(entries["short"]).price < loss(entries["long"]).price
    simulation.run([])
    assert simulation.scheduler.num_preemptions >= 1
