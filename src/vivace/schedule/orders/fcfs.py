"""First come, first served; a higher tier counts as having come earlier."""

from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.order import Order, Rank
from vivace.schedule.sequence import Sequence


class FirstComeOrder(Order):
    """Rank: time of arrival minus the credit of the tier.

    Nobody starves: a request is overtaken only by those that come within (tier difference) x tier_credit_s after it.
    """

    def __init__(self, config: OrderConfig) -> None:
        self._credit_s = config.tier_credit_s

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """Seconds on the engine's clock."""
        return (sequence.arrived_s - sequence.request.service_level.tier * self._credit_s,)
