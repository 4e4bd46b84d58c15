"""Reader-aware: tokens go to whom they reach in time, as in Andes (Liu et al., 2024), with a playback buffer a stream.

A reader takes tokens in at a steady rate (reading_tokens_per_s; 5 to 8 Chinese characters or 3 to 5 English words a
second). What has been told and not read yet is the buffer; where a connection takes nothing, or a reader says what it
has left, that is the buffer instead. A stream with more than `reader_lead_s` of it rests while somebody else is about
to stall or waits for a first token, unless what is waited for are blocks: who rests keeps them longer. Newcomers are
ranked by their deadline as in `deadline`, with what their readers forgive.
"""

from vivace.schedule.estimates import Estimates
from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.orders.deadline import FEASIBLE, DeadlineOrder
from vivace.schedule.orders.order import Rank
from vivace.schedule.sequence import Sequence

GRACE_SHARE = 0.05  # of the time an answer takes to read: (1 - 0.05) squared is a quality of experience of 0.9


class ReaderOrder(DeadlineOrder):
    """Rank: of a stream the seconds until its reader has nothing left to read; of others as in `deadline`."""

    knows_readers = True

    def __init__(self, config: OrderConfig, estimates: Estimates, inter_token_s: float) -> None:
        super().__init__(config, estimates, inter_token_s)
        self._read_until_s: dict[int, float] = {}

    def rank(self, sequence: Sequence, now_s: float) -> Rank:
        """(class, seconds)."""
        if sequence.sequence_id in self._read_until_s:
            return FEASIBLE, self.lead_s(sequence, now_s)
        return super().rank(sequence, now_s)

    def lead_s(self, sequence: Sequence, now_s: float) -> float:
        """Seconds of reading in the buffer; negative: stalled for so long; 0 before the first token."""
        return self._read_until_s.get(sequence.sequence_id, now_s) - now_s

    def may_rest(self, sequence: Sequence, now_s: float) -> bool:
        """The reader has enough to read."""
        return self.lead_s(sequence, now_s) > self._config.reader_lead_s

    def grace_s(self, sequence: Sequence) -> float:
        """What a reader forgives: the quality of experience of a long answer suffers less from a late beginning."""
        return GRACE_SHARE * sequence.expected_tokens / self._rate(sequence)

    def _rate(self, sequence: Sequence) -> float:
        own = sequence.request.service_level.reading_tokens_per_s
        return self._config.reading_tokens_per_s if own is None else own

    def note_token(self, sequence: Sequence) -> None:
        """One token more in the buffer; reading goes on from where it stood, or from now after a stall."""
        now_s = sequence.last_token_s or 0.0
        until_s = max(self._read_until_s.get(sequence.sequence_id, now_s), now_s)
        self._read_until_s[sequence.sequence_id] = until_s + 1 / self._rate(sequence)

    def note_reader(self, sequence: Sequence, now_s: float, lead_s: float, *, is_all: bool) -> None:
        """What was measured stands for what was assumed: all of it, or where it is more."""
        assumed_s = self._read_until_s.get(sequence.sequence_id)
        if assumed_s is not None:
            measured_s = now_s + lead_s
            self._read_until_s[sequence.sequence_id] = measured_s if is_all else max(assumed_s, measured_s)

    def note_left(self, sequence: Sequence) -> None:
        """Forget the buffer."""
        self._read_until_s.pop(sequence.sequence_id, None)
