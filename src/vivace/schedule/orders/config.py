"""What an operator chooses about the order: its kind and the weights of the kinds that have some."""

import math
from dataclasses import dataclass

from vivace.types.errors import ConfigError

ORDER_NAMES = ("fcfs", "priority", "deadline", "fair", "reader")


@dataclass(frozen=True, slots=True)
class OrderConfig:
    """Settings of an order. Times are seconds.

    Args:
        kind: one of ORDER_NAMES.
        tier_credit_s: `fcfs` and `deadline`: one tier higher counts as having come so much earlier.
        waiting_weight: `priority`: alpha, what one `ageing_s` of waiting is worth.
        completion_weight: `priority`: beta, what a request that is over at once is worth against an endless one.
        tier_weight: `priority`: gamma, what the highest tier is worth against tier 0.
        ageing_s: `priority`: unit of the waiting time.
        short_answer_s: `priority`: a request estimated to take so long gets half of beta.
        ttft_s: `deadline` and `reader`: first-token target of requests that name none.
        patience: `deadline` and `reader`: a request that has waited so many times its target goes before all others.
        reading_tokens_per_s: `reader`: how fast readers read who do not say it.
        reader_lead_s: `reader`: a stream with more than so many seconds to read may rest.
        answer_charge: `fair`: what a tenant is charged for a token of an answer; a computed prompt token costs 1.
    """

    kind: str = "fcfs"
    tier_credit_s: float = 10.0
    waiting_weight: float = 1.0
    completion_weight: float = 1.0
    tier_weight: float = 1.0
    ageing_s: float = 10.0
    short_answer_s: float = 5.0
    ttft_s: float = 2.0
    patience: float = 5.0
    reading_tokens_per_s: float = 6.0
    reader_lead_s: float = 3.0
    answer_charge: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in ORDER_NAMES:
            raise ConfigError(f"There is no order {self.kind!r}.", f"Known are: {', '.join(ORDER_NAMES)}.")
        for name in ("waiting_weight", "ageing_s", "short_answer_s", "ttft_s", "patience", "reading_tokens_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give a number above 0, or somebody starves.")
        for name in (
            "tier_credit_s",
            "reader_lead_s",
            "completion_weight",
            "tier_weight",
            "answer_charge",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give a number of at least 0.")
