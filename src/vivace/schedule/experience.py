"""What readers have felt so far: quality of experience and stalls of the answers that ended, by telemetry/reading.py.

Judged when an answer ends by itself or at its limit, from the moments its tokens came; the network adds its own.
"""

from vivace.schedule.orders.config import OrderConfig
from vivace.schedule.sequence import Sequence
from vivace.telemetry.reading import quality_of_experience, stalled_s

HAPPY_QOE = 0.9
STALLED_S = 0.5


class ReaderExperience:
    """Counts over all answers.

    Args:
        config: what is expected by readers who say nothing: the first token and how fast they read.
    """

    def __init__(self, config: OrderConfig) -> None:
        self._config = config
        self._total_qoe = 0.0
        self.num_judged = 0
        self.num_happy = 0
        self.num_stalled = 0

    @property
    def mean_qoe(self) -> float | None:
        """0 to 1; None before an answer has ended."""
        return self._total_qoe / self.num_judged if self.num_judged else None

    def note_ended(self, sequence: Sequence) -> None:
        """An answer is complete."""
        level, times = sequence.request.service_level, sequence.token_times_s
        if not times:
            return
        ttft_s = self._config.ttft_s if level.ttft_s is None else level.ttft_s
        own = level.reading_tokens_per_s
        rate = self._config.reading_tokens_per_s if own is None else own
        qoe = quality_of_experience(times, sequence.arrived_s, rate, ttft_s)
        self._total_qoe += qoe
        self.num_judged += 1
        self.num_happy += qoe >= HAPPY_QOE
        self.num_stalled += stalled_s(times, rate) > STALLED_S
