"""Fair shares between tenants by virtual token counters (VTC; Sheng et al., 2024, "Fairness in Serving LLMs").

Every tenant has a counter of the service it got: 1 for each prompt token computed for it, answer_charge for
each token of an answer. The tenant with the least is served next. A tenant that comes back after a pause is lifted to
the least counter of those that are there, so that idleness earns no credit (algorithm 2 of the paper). A tier is a
weight: tier t gets 1 + t shares. Tokens from the prefix cache are free, tokens computed again after a pre-emption too.

Between two tenants that always have work waiting, the counters differ by at most 2 x max(longest prompt,
answer_charge x tokens in the batch) (theorem 4.3 there).
"""

from collections import Counter

from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.order import Order, Rank
from vivace.schedule.sequence import Sequence

FORGET_OVER = 4096  # counters of tenants that left; more are folded into "new"


class FairOrder(Order):
    """Rank: the counter of the sequence's tenant."""

    follows_service = True

    def __init__(self, config: OrderConfig) -> None:
        self._config = config
        self._counters: dict[str, float] = {}
        self._num_live: Counter[str] = Counter()
        self._last_counter = 0.0

    @property
    def counters(self) -> dict[str, float]:
        """Charged service by tenant, over the weight of its tier."""
        return dict(self._counters)

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """Charged tokens over the weight."""
        return (self._counters.get(sequence.request.service_level.tenant, 0.0),)

    def note_arrived(self, sequence: Sequence) -> None:
        """Lift a tenant that was away."""
        tenant = sequence.request.service_level.tenant
        if not self._num_live[tenant]:
            there = [self._counters[name] for name, count in self._num_live.items() if count and name != tenant]
            lowest = min(there, default=self._last_counter)
            self._counters[tenant] = max(self._counters.get(tenant, 0.0), lowest)
        self._num_live[tenant] += 1

    def note_started(self, sequence: Sequence, num_prompt: int) -> None:
        """Charge the prompt."""
        self._charge(sequence, num_prompt)

    def note_token(self, sequence: Sequence) -> None:
        """Charge a token."""
        self._charge(sequence, self._config.answer_charge)

    def note_left(self, sequence: Sequence) -> None:
        """One sequence of the tenant less."""
        tenant = sequence.request.service_level.tenant
        self._num_live[tenant] -= 1
        if self._num_live[tenant]:
            return
        del self._num_live[tenant]
        self._last_counter = self._counters[tenant]
        if len(self._counters) > FORGET_OVER:
            self._counters = {name: self._counters[name] for name in self._num_live}

    def _charge(self, sequence: Sequence, charge: float) -> None:
        level = sequence.request.service_level
        self._counters[level.tenant] += charge / (1 + level.tier)
