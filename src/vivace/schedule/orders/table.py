"""The table of orders."""

from collections.abc import Callable

from vivace.schedule.estimates import Estimates
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.deadline import DeadlineOrder
from vivace.schedule.orders.fair import FairOrder
from vivace.schedule.orders.fcfs import FirstComeOrder
from vivace.schedule.orders.order import Order
from vivace.schedule.orders.priority import PriorityOrder
from vivace.schedule.orders.reader import ReaderOrder

ORDERS: dict[str, Callable[[OrderConfig, Estimates, float], Order]] = {
    "fcfs": lambda config, estimates, inter_token_s: FirstComeOrder(config),
    "priority": lambda config, estimates, inter_token_s: PriorityOrder(config, estimates),
    "deadline": DeadlineOrder,
    "fair": lambda config, estimates, inter_token_s: FairOrder(config),
    "reader": ReaderOrder,
}


def build_order(config: OrderConfig, estimates: Estimates, inter_token_s: float) -> Order:
    """The order that the config names.

    Args:
        config: kind and weights.
        estimates: what work takes, as far as it is known.
        inter_token_s: the server's target between two tokens.
    """
    return ORDERS[config.kind](config, estimates, inter_token_s)
