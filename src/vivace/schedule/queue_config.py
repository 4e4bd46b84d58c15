"""Limits of the queue, as an operator sets them."""

import math
from dataclasses import dataclass, replace

from vivace.types.errors import ConfigError
from vivace.types.request import MAX_TIER, GenerationRequest


@dataclass(frozen=True, slots=True)
class TierTarget:
    """What requests of a tier are promised that name no target of their own; None: what the server promises everybody.

    Args:
        tier: of the asker.
        ttft_s: target for the first token.
        inter_token_s: target for the time between two tokens.
        queue_timeout_s: a request that has not started by then fails.
    """

    tier: int
    ttft_s: float | None = None
    inter_token_s: float | None = None
    queue_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tier <= MAX_TIER:
            raise ConfigError(f"There is no tier {self.tier}.", f"Give 0 to {MAX_TIER}.")
        for name in _TARGETS:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} of tier {self.tier} is {value}.", "Give a number of seconds above 0.")


_TARGETS = ("ttft_s", "inter_token_s", "queue_timeout_s")


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Limits of the queue.

    Args:
        max_waiting: requests that wait to run, at most; more are refused.
        max_waiting_per_tenant: the same for one tenant; None: no limit of its own.
        ttft_s: target for the first token of requests that name none; None: no target. A request whose first token is
            expected later than its target is refused.
        queue_timeout_s: for requests that name none; None: they wait as long as it takes.
        tier_targets: targets of tiers, which stand before those above and behind a request's own.
    """

    max_waiting: int = 1000
    max_waiting_per_tenant: int | None = None
    ttft_s: float | None = None
    queue_timeout_s: float | None = None
    tier_targets: tuple[TierTarget, ...] = ()

    def __post_init__(self) -> None:
        tiers = [target.tier for target in self.tier_targets]
        if len(set(tiers)) < len(tiers):
            raise ConfigError("A tier has targets twice.", "Give each tier its targets once.")
        for name in ("max_waiting", "max_waiting_per_tenant", "ttft_s", "queue_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}.", "Give a number above 0.")

    def with_targets(self, request: GenerationRequest) -> GenerationRequest:
        """The request with the targets of its tier where it has none of its own."""
        level = request.service_level
        for target in self.tier_targets:
            if target.tier == level.tier:
                missing = {name: getattr(target, name) for name in _TARGETS if getattr(level, name) is None}
                return replace(request, service_level=replace(level, **missing))
        return request
