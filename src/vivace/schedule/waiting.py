"""Sequences that wait to run, in the order they will be taken."""

from collections.abc import Iterator

from vivace.schedule.orders.order import Order
from vivace.schedule.sequence import Sequence


class WaitingQueue:
    """Holds those that wait; who is next is the order's to say, at the moment it is asked.

    Args:
        order: ranks sequences.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._entries: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._entries)

    def push(self, sequence: Sequence) -> None:
        """Add a sequence."""
        self._entries.append(sequence)

    def sort(self, now_s: float) -> None:
        """Bring the queue into the order of this moment (cheap where little has changed since the last time)."""
        self._entries.sort(key=lambda entry: self._order.key(entry, now_s))

    def first(self) -> Sequence | None:
        """Who was next at the last `sort`, or None."""
        return self._entries[0] if self._entries else None

    def ahead_of(self, sequence: Sequence, now_s: float) -> list[Sequence]:
        """Those who are before a sequence, in the queue or not, in the order of this moment."""
        key = self._order.key(sequence, now_s)
        return [entry for entry in self._entries if self._order.key(entry, now_s) < key]

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that is in the queue."""
        self._entries.remove(sequence)
