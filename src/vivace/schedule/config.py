"""How much one step may hold and how many sequences share it."""

import math
from dataclasses import dataclass, field

from vivace.cache.policies import FullPolicy, KvPolicy
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.queue_config import QueueConfig
from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Sizes of a scheduler.

    Args:
        max_batch_tokens: rows of one step, over all sequences.
        max_sequences: sequences that run at the same time; below max_batch_tokens, so that in every step each stream
            gets its token and a prompt advances.
        max_chunk_tokens: rows of one sequence in one step.
        max_prompt_tokens_beside_streams: rows for prompts in a step that also serves streams, as long as step costs
            are not measured; from then on inter_token_s decides (see prompt_budget.py).
        context_length: most known tokens of a sequence.
        eos_ids: token ids that end an answer.
        prefix_cache: find the KV blocks of known prefixes again.
        order: who is served first.
        inter_token_s: target for the time between two tokens of a stream, for requests that name none.
        queue: who may wait, and how long.
        eviction: which cached block is forgotten first, a row of cache/eviction.py.
        policy: which keys rows see, and so which blocks go back to the pool while their sequence still runs; for
            requests that name none.
    """

    max_batch_tokens: int = 512
    max_sequences: int = 64
    max_chunk_tokens: int = 512
    max_prompt_tokens_beside_streams: int = 128
    context_length: int = 1 << 30
    eos_ids: frozenset[int] = frozenset()
    prefix_cache: bool = True
    order: OrderConfig = field(default_factory=OrderConfig)
    inter_token_s: float = 0.1
    queue: QueueConfig = field(default_factory=QueueConfig)
    eviction: str = "lru"
    policy: KvPolicy = field(default_factory=FullPolicy)

    def __post_init__(self) -> None:
        for name in ("max_sequences", "max_chunk_tokens", "max_prompt_tokens_beside_streams", "context_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give at least 1.")
        if not 0 < self.inter_token_s < math.inf:
            raise ConfigError(f"inter_token_s is {self.inter_token_s}.", "Give a number of seconds above 0.")
        if self.max_batch_tokens <= self.max_sequences:
            raise ConfigError(
                f"max_batch_tokens is {self.max_batch_tokens} with max_sequences {self.max_sequences}.",
                "Make max_batch_tokens larger than max_sequences, so that every stream and a prompt advance.",
            )

    @property
    def least_prompt_tokens(self) -> int:
        """Rows that prompts get in a step as a rule, however many streams run."""
        beside = min(self.max_prompt_tokens_beside_streams, self.max_batch_tokens - self.max_sequences)
        return min(beside, self.max_chunk_tokens)
