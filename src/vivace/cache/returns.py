"""Who is likely to come back: conversations that came back before, those active lately first.

A conversation is known by the keys of its blocks; a request whose prompt goes on from the end of another one is its
next turn. One-shot requests, however recent, are never expected again.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_CONVERSATIONS = 256
EXPECTED_FROM_TURN = 2


@dataclass(frozen=True, slots=True)
class _Conversation:
    keys: tuple[bytes, ...]
    num_turns: int


class ReturnPredictor:
    """Remembers the last conversations. Belongs to one thread."""

    def __init__(self) -> None:
        self._by_end: OrderedDict[bytes, _Conversation] = OrderedDict()  # the oldest first

    def note_active(self, keys: Sequence[bytes]) -> None:
        """A request with these block keys has run."""
        if not keys:
            return
        before = next((self._by_end.pop(key) for key in reversed(keys) if key in self._by_end), None)
        num_turns = 1 if before is None else before.num_turns + (len(before.keys) < len(keys))
        self._by_end[keys[-1]] = _Conversation(tuple(keys), num_turns)
        if len(self._by_end) > MAX_CONVERSATIONS:
            self._by_end.popitem(last=False)

    def expected(self, max_blocks: int) -> Iterator[tuple[bytes, ...]]:
        """Keys of the conversations that may come back, the most recent first, of so many blocks together at most."""
        for conversation in reversed(self._by_end.values()):
            if conversation.num_turns >= EXPECTED_FROM_TURN:
                max_blocks -= len(conversation.keys)
                if max_blocks < 0:
                    return
                yield conversation.keys
