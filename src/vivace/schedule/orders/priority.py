"""Priority = alpha x waiting + beta x estimated completion + gamma x tier (chapter 18.1.3), with units.

* waiting: seconds waited / ageing_s; grows without end, which is the ageing.
* estimated completion: h / (h + e) with e the estimated seconds of work left and h = short_answer_s: 1 for a request
  that is as good as done, 1/2 at e = h, toward 0 for endless ones. Short requests first keeps the mean wait low.
* tier: tier / MAX_TIER, 0 to 1.

Nobody starves: the last two terms of two requests differ by at most beta + gamma, so a request is overtaken only by
those that come within (beta + gamma) / alpha x ageing_s after it.
"""

from vivace.schedule.estimates import Estimates
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.order import Order, Rank
from vivace.schedule.sequence import Sequence
from vivace.types.request import MAX_TIER


def overtaking_bound_s(config: OrderConfig) -> float:
    """A request can be overtaken only by those that come within so many seconds after it."""
    return (config.completion_weight + config.tier_weight) / config.waiting_weight * config.ageing_s


class PriorityOrder(Order):
    """Rank: minus the priority."""

    def __init__(self, config: OrderConfig, estimates: Estimates) -> None:
        self._config = config
        self._estimates = estimates

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """Without a unit."""
        config = self._config
        waiting = (now_s - sequence.arrived_s) / config.ageing_s
        short_s = config.short_answer_s
        completion = short_s / (short_s + self._estimates.completion_s(sequence))
        tier = sequence.request.service_level.tier / MAX_TIER
        priority = config.waiting_weight * waiting + config.completion_weight * completion + config.tier_weight * tier
        return (-priority,)
