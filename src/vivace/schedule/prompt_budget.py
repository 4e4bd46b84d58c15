"""How much of a step prompts may take while streams wait for their next token: a guarantee with two sides.

* A stream's gap between tokens stays within its target, as far as the measured step cost can tell.
* A prompt always advances: by `LEAST_ROWS` a step, and by `LEAST_SHARE` of the time that the streams take themselves,
  even where streams alone use up the target.

Until step costs are known, a fixed number of rows stands in.
"""

from collections.abc import Iterable

from vivace.schedule.config import SchedulerConfig
from vivace.schedule.estimates import Estimates
from vivace.schedule.sequence import Sequence

LEAST_ROWS = 16
LEAST_SHARE = 0.25


class PromptBudget:
    """Rows and milliseconds for the prompts of one step; `take` hands them out.

    Args:
        config: sizes and the server's target.
        estimates: measured step costs.
        streams: sequences that get a token in this step.
    """

    def __init__(self, config: SchedulerConfig, estimates: Estimates, streams: Iterable[Sequence]) -> None:
        streams = tuple(streams)
        self._cost = estimates.steps.cost if streams else None
        self._max_chunk = config.max_chunk_tokens
        self._rows = config.max_batch_tokens - len(streams)
        self._is_untouched = True
        if self._cost is not None:
            streams_ms = self._cost.step_ms(len(streams), sum(stream.num_known for stream in streams))
            self._left_ms = max(target_ms(config, streams) - streams_ms, LEAST_SHARE * streams_ms)
        elif streams:
            self._rows = min(self._rows, config.max_prompt_tokens_beside_streams)

    def take(self, sequence: Sequence) -> int:
        """Rows for the next prompt in order; 0 when there is no room left."""
        most = min(sequence.num_ready, self._max_chunk, self._rows)
        count = most
        if self._cost is not None:
            least = LEAST_ROWS if self._is_untouched else 0
            affordable = self._cost.prompt_rows(sequence.num_computed, self._left_ms)
            count = min(most, max(least, affordable))
            pairs = count * (sequence.num_computed + count / 2)
            self._left_ms -= self._cost.per_row_ms * count + self._cost.per_pair_ms * pairs
        self._is_untouched = False
        self._rows -= count
        return count


def target_ms(config: SchedulerConfig, streams: Iterable[Sequence]) -> float:
    """The shortest gap between tokens that one of the streams is promised."""
    wanted = (stream.request.service_level.inter_token_s for stream in streams)
    return 1e3 * min(config.inter_token_s if gap_s is None else gap_s for gap_s in wanted)
