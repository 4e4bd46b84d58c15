"""Which cached block is forgotten when room is needed: rows `lru`, `lfu` and `cost`.

A block can only be found while all blocks of its prefix are known, so a prefix should outlive its ends: each kind says
how it sees to that. Kinds know block numbers and how blocks were used, never contents.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vivace.types.errors import ConfigError


@dataclass(slots=True)
class BlockUse:
    """How a block with known contents was used.

    Args:
        depth: blocks before it in its sequence.
        num_hits: how often it was found again.
    """

    depth: int = 0
    num_hits: int = 0


class Eviction(Protocol):
    """The cached blocks, in the order they will be forgotten."""

    def add(self, block: int, use: BlockUse) -> None:
        """The last holder has let go. Of blocks let go together, the ends of a sequence come first."""
        ...

    def discard(self, block: int) -> None:
        """The block is held again."""
        ...

    def pop(self) -> int:
        """Take out the block to forget; there is one."""
        ...


class LeastRecentlyUsed:
    """`lru`: the block that was let go longest ago. Ends go before their prefix because they are let go first."""

    def __init__(self) -> None:
        self._blocks: dict[int, None] = {}

    def add(self, block: int, use: BlockUse) -> None:
        """The youngest."""
        self._blocks[block] = None

    def discard(self, block: int) -> None:
        """Held again."""
        del self._blocks[block]

    def pop(self) -> int:
        """The oldest."""
        block = next(iter(self._blocks))
        del self._blocks[block]
        return block


class _LowestFirst:
    """Forgets the block of the lowest value; equal values by age."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []
        self._stamps: dict[int, int] = {}
        self._num_added = 0

    def add(self, block: int, use: BlockUse) -> None:
        """With its value of this moment."""
        self._num_added += 1
        self._stamps[block] = self._num_added
        heapq.heappush(self._heap, (self._value(use), self._num_added, block))

    def discard(self, block: int) -> None:
        """Held again; its entry in the heap is skipped later, or swept when most entries are stale."""
        del self._stamps[block]
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._stamps):
            self._heap = [entry for entry in self._heap if self._stamps.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def pop(self) -> int:
        """The one of the lowest value."""
        while True:
            value, stamp, block = heapq.heappop(self._heap)
            if self._stamps.get(block) == stamp:
                del self._stamps[block]
                self._note_popped(value)
                return block

    def _value(self, use: BlockUse) -> float:
        raise NotImplementedError

    def _note_popped(self, value: float) -> None:
        """A block of this value was forgotten."""


class LeastFrequentlyUsed(_LowestFirst):
    """`lfu`: the block found again the fewest times. A prefix is found at least as often as its ends."""

    def _value(self, use: BlockUse) -> float:
        return use.num_hits


class CostAware(_LowestFirst):
    """`cost`: the block whose loss is cheapest to make good, as GreedyDual-Size-Frequency weighs it (Cherkasova, 1998).

    Value = age + (1 + hits) x cost, age being the value of the last forgotten block, so that what is never used again
    ages. The loss of a block costs its own computation and that of everything after it, of which there is the less the
    deeper it lies: cost = 1 + 1 / (1 + depth). So a prefix is worth more than its ends, and system prompts that many
    conversations share are worth most.
    """

    def __init__(self) -> None:
        super().__init__()
        self._age = 0.0

    def _value(self, use: BlockUse) -> float:
        return self._age + (1 + use.num_hits) * (1 + 1 / (1 + use.depth))

    def _note_popped(self, value: float) -> None:
        self._age = value


EVICTIONS: dict[str, Callable[[], Eviction]] = {
    "lru": LeastRecentlyUsed,
    "lfu": LeastFrequentlyUsed,
    "cost": CostAware,
}


def build_eviction(kind: str) -> Eviction:
    """The row of a name.

    Raises:
        ConfigError: there is none of that name.
    """
    if kind not in EVICTIONS:
        raise ConfigError(f"There is no eviction {kind!r}.", f"Known are: {', '.join(EVICTIONS)}.")
    return EVICTIONS[kind]()
