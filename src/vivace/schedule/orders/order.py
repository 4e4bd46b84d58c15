"""What an order is: a rank for each sequence at a moment, and an ear for what the scheduler does.

An order decides when a sequence is served, never what it says. Ranks are compared only with ranks of the same moment.
"""

from vivace.schedule.sequence import Sequence

Rank = tuple[float, ...]


class Order:
    """First come, first served in every hook that a kind leaves alone.

    `follows_service`: ranks change when a sequence starts, so that they have to be worked out again after each start.
    `knows_readers`: `may_rest` is worth asking.
    """

    follows_service = False
    knows_readers = False

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """The smaller rank is served first; equal ranks by arrival, which is never part of the rank itself."""
        return ()

    def may_rest(self, sequence: Sequence, now_s: float) -> bool:
        """Nobody would notice if this stream got no token in this step."""
        return False

    def note_arrived(self, sequence: Sequence) -> None:
        """The sequence has joined those that wait, for the first time."""

    def note_started(self, sequence: Sequence, num_prompt: int) -> None:
        """The sequence begins to run for the first time and has so many prompt tokens to compute."""

    def note_token(self, sequence: Sequence) -> None:
        """The sequence has got one more token."""

    def note_reader(self, sequence: Sequence, now_s: float, lead_s: float, *, is_all: bool) -> None:
        """Text of so many seconds waits for the sequence's reader; `is_all`: nothing else does."""

    def note_left(self, sequence: Sequence) -> None:
        """The sequence has ended."""

    def key(self, sequence: Sequence, now_s: float) -> tuple[Rank, tuple[int, int]]:
        """The rank with the arrival that settles ties."""
        return self.rank(sequence, now_s), sequence.order
