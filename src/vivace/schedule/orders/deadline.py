"""Least slack first: how long a request can still wait and meet its target.

Before the first token the deadline is arrival + the target of the first token, less the time its prompt takes; after
it, the last token + the target between tokens. A plain earliest-deadline order serves those that are already too late
first and makes everybody late under overload; here they go behind those that can still be met, until their patience is
over.

Nobody starves: a request that has waited `patience` x its target (since its last token, if it has any) goes before all
that have not, by age.
"""

from vivace.schedule.estimates import Estimates
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.order import Order, Rank
from vivace.schedule.sequence import Sequence

OVERDUE, FEASIBLE, MISSED = 0.0, 1.0, 2.0


class DeadlineOrder(Order):
    """Rank: overdue before feasible before missed; then slack, or age where there is none left.

    A tier counts as a target that is `tier_credit_s` nearer.
    """

    def __init__(self, config: OrderConfig, estimates: Estimates, inter_token_s: float) -> None:
        self._config = config
        self._estimates = estimates
        self._inter_token_s = inter_token_s

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """(class, seconds)."""
        level = sequence.request.service_level
        credit_s = level.tier * self._config.tier_credit_s
        target_s = self._config.ttft_s if level.ttft_s is None else level.ttft_s
        last_token_s = sequence.last_token_s
        waited_s = now_s - (sequence.arrived_s if last_token_s is None else last_token_s)
        if waited_s >= target_s * self._config.patience:
            return OVERDUE, sequence.arrived_s - credit_s
        if last_token_s is not None:
            gap_s = self._inter_token_s if level.inter_token_s is None else level.inter_token_s
            return FEASIBLE, gap_s - waited_s - credit_s
        slack_s = target_s + self.grace_s(sequence) - waited_s - self._estimates.prompt_s(sequence)
        if slack_s < 0:
            return MISSED, sequence.arrived_s - credit_s
        return FEASIBLE, slack_s - credit_s

    def grace_s(self, sequence: Sequence) -> float:
        """Seconds after its target in which a first token is not too late yet."""
        return 0.0
