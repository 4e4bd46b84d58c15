"""Options of `vivace serve` about the queue: who may wait, how long, and what is promised to whom."""

import argparse
from typing import TYPE_CHECKING, Any

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.schedule.queue_config import QueueConfig


def add_queue_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("queue (docs/scheduling.md)")
    group.add_argument(
        "--max-waiting", type=int, default=1000, metavar="N", help="requests that may wait (default: %(default)s)"
    )
    group.add_argument("--max-waiting-per-tenant", type=int, metavar="N", help="of one tenant; beyond it: status 429")
    group.add_argument(
        "--ttft-target",
        type=float,
        metavar="S",
        help="refuse requests whose first token is expected later, unless they say what they want",
    )
    group.add_argument("--queue-timeout", type=float, metavar="S", help="fail requests that have not started by then")
    group.add_argument(
        "--tier-target",
        action="append",
        default=[],
        metavar="TIER:NAME=S,...",
        help="targets of a tier: ttft, gap (between tokens) and queue, as in 2:ttft=1,gap=0.1; repeatable",
    )


def queue_config(arguments: argparse.Namespace) -> "QueueConfig":
    """The QueueConfig that the options choose.

    Raises:
        ConfigError: a value that can never work.
    """
    from vivace.schedule.queue_config import QueueConfig, TierTarget

    return QueueConfig(
        max_waiting=arguments.max_waiting,
        max_waiting_per_tenant=arguments.max_waiting_per_tenant,
        ttft_s=arguments.ttft_target,
        queue_timeout_s=arguments.queue_timeout,
        tier_targets=tuple(TierTarget(**_tier_target(text)) for text in arguments.tier_target),
    )


_NAMES = {"ttft": "ttft_s", "gap": "inter_token_s", "queue": "queue_timeout_s"}


def _tier_target(text: str) -> dict[str, Any]:
    tier, _, rest = text.partition(":")
    parts = [part.partition("=") for part in rest.split(",")]
    try:
        return {"tier": int(tier), **{_NAMES[name]: float(seconds) for name, _, seconds in parts}}
    except (KeyError, ValueError):
        raise ConfigError(f"{text!r} is no target of a tier.", "Write it as in 2:ttft=1,gap=0.1,queue=5.") from None
