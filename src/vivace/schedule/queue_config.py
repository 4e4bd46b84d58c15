"""Limits of the queue, as an operator sets them."""

from dataclasses import dataclass

from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Limits of the queue.

    Args:
        max_waiting: requests that wait to run, at most; more are refused.
        max_waiting_per_tenant: the same for one tenant; None: no limit of its own.
        ttft_s: target for the first token of requests that name none; None: no target. A request whose first token is
            expected later than its target is refused.
        queue_timeout_s: for requests that name none; None: they wait as long as it takes.
    """

    max_waiting: int = 1000
    max_waiting_per_tenant: int | None = None
    ttft_s: float | None = None
    queue_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_waiting", "max_waiting_per_tenant", "ttft_s", "queue_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}.", "Give a number above 0.")
