"""Sequences that wait to run, in the order they will be taken."""

import bisect
from collections.abc import Iterator

from vivace.schedule.sequence import Sequence


class WaitingQueue:
    """First come, first served: a pre-empted sequence finds its old place again, before all who came later."""

    def __init__(self) -> None:
        self._entries: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._entries)

    def push(self, sequence: Sequence) -> None:
        """Insert by order; at the end for a newcomer."""
        bisect.insort(self._entries, sequence, key=lambda entry: entry.order)

    def first(self) -> Sequence | None:
        """Who is next, or None."""
        return self._entries[0] if self._entries else None

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that is in the queue."""
        index = bisect.bisect_left(self._entries, sequence.order, key=lambda entry: entry.order)
        if self._entries[index] is not sequence:
            raise AssertionError(f"sequence {sequence.sequence_id} is not where its order says")
        del self._entries[index]
