"""Settings of an engine beside its sizes: who is served first, and what happens where room or power runs short."""

from dataclasses import dataclass, field

from vivace.cache.eviction import build_eviction
from vivace.engine.long_chat import LONG_CHAT_NAMES
from vivace.engine.precision import parse_precision
from vivace.engine.speculation import SpeculationOptions
from vivace.engine.tiering import TierConfig
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.queue_config import QueueConfig
from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServingConfig(SpeculationOptions):
    """Who is served first, what happens where room runs short, and, of SpeculationOptions, who guesses ahead.

    Args:
        order: who is served first: a name of ORDER_NAMES, or an OrderConfig with weights of its own.
        eviction: what is forgotten first when the prefix cache is full: lru, lfu or cost (see cache/eviction.py).
        long_chat: what happens to chats that outgrow the context: reject, truncate, window or adaptive (see
            engine/long_chat.py).
        queue: who may wait, how long, and what tiers are promised.
        tiers: where keys and values go that the pool forgets, and where conversations are saved.
        precision: how much of nested weights is read: off, chapter, load:8 ... (see engine/precision.py). By load,
            battery or heat the text depends on the moment.
    """

    order: str | OrderConfig = "fcfs"
    eviction: str = "lru"
    long_chat: str = "reject"
    queue: QueueConfig = field(default_factory=QueueConfig)
    tiers: TierConfig = field(default_factory=TierConfig)
    precision: str = "off"

    def check_serving(self) -> None:
        """Refuse names that no table has.

        Raises:
            ConfigError: an unknown name.
        """
        self.order_config()
        self.check_speculation()
        build_eviction(self.eviction)
        parse_precision(self.precision)
        if self.long_chat not in LONG_CHAT_NAMES:
            raise ConfigError(f"long_chat is {self.long_chat!r}.", f"Known are: {', '.join(LONG_CHAT_NAMES)}.")

    def order_config(self) -> OrderConfig:
        """The order with its weights."""
        return OrderConfig(self.order) if isinstance(self.order, str) else self.order
