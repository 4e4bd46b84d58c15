"""Who gives up its blocks when they run short: of the later half in order the one that loses least for what it frees.

The order comes first, so that nobody of the earlier half pays for the later one. Among the later half the price
decides: the seconds until the victim is where it was, over the blocks that become available. How it would come back, by
copying or by computing, is for schedule/tiers.py to say. Long conversations free little for what they lose, and stay.
"""

from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from vivace.schedule.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Loss:
    """Seconds that a victim loses, and blocks that it frees."""

    seconds: float
    num_freed: int

    @property
    def price(self) -> float:
        """Seconds a freed block; endless where nothing is freed."""
        return self.seconds / self.num_freed if self.num_freed else float("inf")


def choose_victim(in_order: Rows[Sequence], loss_of: Callable[[Sequence], Loss]) -> Sequence:
    """The cheapest victim of the later half, the last in order among equally cheap ones.

    Args:
        in_order: those that may be pre-empted, the first to be served first; not empty.
        loss_of: what pre-empting one costs and brings.
    """
    later_half = in_order[len(in_order) // 2 :]
    return min(reversed(later_half), key=lambda sequence: loss_of(sequence).price)
