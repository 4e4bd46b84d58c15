"""Which blocks of a long sequence are worth keeping: those that its latest rows attended to most.

Heavy hitters as in H2O (Zhang et al., 2023), found as in SnapKV (Li et al., 2024): shortly before a decision some rows
are observed, and the blocks that got the least of their attention are taken out of the table, whole, so that they
really return to the pool. Decisions fall on fixed positions and read nothing but the sequence's own rows: the same
tokens always lose the same blocks, whatever shares the batch and however the prompt was cut.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.cache.block_table import BlockTable
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE

Masses = NDArray[np.float32]
OBSERVED_ROWS = 16  # rows before a decision whose attention counts
FADING = 0.5  # of what a block was worth at the decision before


@dataclass(frozen=True, slots=True)
class Pruning:
    """When and how far a table is thinned out; all in positions, multiples of BLOCK_SIZE.

    Args:
        first: the first decision falls before the row at this position.
        every: and then one each so many positions.
        keys: positions kept for the attention they got.
        window: latest positions, kept whatever they got.
        sinks: first positions, kept whatever they got.
    """

    first: int
    every: int
    keys: int
    window: int
    sinks: int = BLOCK_SIZE

    def __post_init__(self) -> None:
        for name, least in (("first", OBSERVED_ROWS), ("every", OBSERVED_ROWS), ("keys", 0), ("window", BLOCK_SIZE)):
            value = getattr(self, name)
            if value < least or value % BLOCK_SIZE:
                raise ConfigError(f"{name} of a policy with key tokens is {value}.", "Give a multiple of 16.")

    @property
    def most_held(self) -> int:
        """Positions in the table just before a decision, at most."""
        return max(self.first, self.sinks + self.keys + self.window + self.every)


class Retention:
    """What one sequence knows of the attention to its blocks.

    Args:
        pruning: when it decides, and how much stays.
    """

    __slots__ = ("_pruning", "_rows", "_worth", "next_decision")

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning
        self._rows: dict[int, Masses] = {}
        self._worth: Masses = np.zeros(0, np.float32)
        self.next_decision = pruning.first

    def observed(self, start: int, end: int) -> range:
        """Those of the positions [start, end) whose rows are to be observed."""
        return range(max(start, self.next_decision - OBSERVED_ROWS), min(end, self.next_decision))

    def note(self, position: int, masses: Masses) -> None:
        """The row at `position` paid so much attention to each block of the table; the last word on a row counts."""
        self._rows[position] = masses

    def fork(self) -> "Retention":
        """The same knowledge, for a sequence that goes its own way from here."""
        twin = Retention(self._pruning)
        twin.next_decision, twin._rows, twin._worth = self.next_decision, dict(self._rows), self._worth
        return twin

    def decide(self, table: BlockTable) -> list[int]:
        """Thin out the table of a sequence that has computed all before the decision; returns the blocks taken out."""
        num_decided = self.next_decision // BLOCK_SIZE - table.num_removed
        worth = np.zeros(num_decided, np.float32)
        for position in sorted(self._rows):
            worth += self._rows[position][:num_decided]
        worth[: len(self._worth)] += np.float32(FADING) * self._worth
        kept = self._choose(table.entries[:num_decided], worth)
        blocks = table.keep([*kept.tolist(), *range(num_decided, len(table.entries))])
        self._worth = worth[kept]
        self._rows.clear()
        self.next_decision += self._pruning.every
        return blocks

    def _choose(self, entries: NDArray[np.int32], worth: Masses) -> NDArray[np.intp]:
        """Entries to keep, ascending: sinks, the window, and the worthiest between them; of equals the later ones."""
        first, last = self._pruning.sinks // BLOCK_SIZE, len(entries) - self._pruning.window // BLOCK_SIZE
        between = np.flatnonzero(entries[: max(first, last)] >= 0)
        between = between[between >= first]
        latest_first = between[::-1]
        order = latest_first[np.argsort(-worth[latest_first], kind="stable")]
        kept = entries >= 0
        kept[order[self._pruning.keys // BLOCK_SIZE :]] = False
        return np.flatnonzero(kept)
