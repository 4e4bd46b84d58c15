"""When to try again: exponential backoff with full jitter (Brooker, 2015), begun anew whenever an event came."""

import random
from dataclasses import dataclass, field

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a client is.

    Args:
        max_tries: tries in a row that bring no event before it gives up.
        base_s: mean of the first wait is half of it; each further wait may be twice as long.
        max_wait_s: no wait is longer.
    """

    max_tries: int = 10
    base_s: float = 0.2
    max_wait_s: float = 10.0


@dataclass(slots=True)
class Backoff:
    """The waits of one stream."""

    policy: RetryPolicy
    num_tries: int = 0
    rng: random.Random = field(default_factory=random.Random)

    def note_progress(self) -> None:
        """An event came."""
        self.num_tries = 0

    def next_wait_s(self, at_least_s: float = 0.0) -> float | None:
        """Seconds to wait before the next try; None when it is time to give up."""
        self.num_tries += 1
        if self.num_tries >= self.policy.max_tries:
            return None
        most = min(self.policy.max_wait_s, self.policy.base_s * 2.0 ** (self.num_tries - 1))
        return max(at_least_s, self.rng.uniform(0.0, most))
