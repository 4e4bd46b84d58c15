"""Numbers of a running engine, as one value."""

from dataclasses import dataclass

from vivace.cache.tiers import TierStats
from vivace.types.speculation import SpeculationUsage


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A moment's view: sequences and KV blocks now, then totals since the engine began.

    `num_computed_tokens` counts rows of all steps, prompts and answers, again after a pre-emption;
    `num_generated_tokens` tokens told; `num_cached_tokens` prompt tokens found in the prefix cache;
    `num_prompt_tokens` the prompt tokens these were found among; `kv_held_tokens` and `kv_reserved_tokens` known tokens
    and the slots of held blocks, summed over every KV_LOOK_STEPS-th step; `num_refused` requests not admitted, and
    `num_timed_out` those that waited too long; `expected_wait_s` what the last newcomer had to expect until its first
    token; `completion_error` and `step_cost_error` mean absolute errors of estimates over what they estimate;
    `num_local_blocks` and `held_local_blocks` are of layers that see a window of their own, 0 where there are none;
    `num_drafted_tokens` guesses that steps verified, `num_accepted_tokens` those of them that stood; `tiers` what left
    the pool and came back, None where nothing is kept; `mean_qoe` the mean quality of experience of the `num_judged`
    answers that are complete, of which readers of `num_happy` had at least 0.9 and of `num_stalled` waited over 0.5 s
    in the middle (`telemetry/reading.py`); `speculation` what drafts did for all answers, None where nobody
    guesses.
    """

    running_sequences: int
    waiting_sequences: int
    total_blocks: int
    free_blocks: int
    held_blocks: int
    cached_blocks: int
    num_preemptions: int
    num_requests: int
    num_finished_choices: int
    num_failed_requests: int
    num_steps: int
    num_computed_tokens: int
    num_generated_tokens: int
    num_cached_tokens: int
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    num_prompt_tokens: int = 0
    kv_held_tokens: int = 0
    kv_reserved_tokens: int = 0
    num_refused: int = 0
    num_timed_out: int = 0
    expected_wait_s: float | None = None
    completion_error: float | None = None
    step_cost_error: float | None = None
    tiers: TierStats | None = None
    speculation: SpeculationUsage | None = None
    num_local_blocks: int = 0
    held_local_blocks: int = 0
    mean_qoe: float | None = None
    num_judged: int = 0
    num_happy: int = 0
    num_stalled: int = 0

    @property
    def prefix_hit_rate(self) -> float | None:
        """Share of prompt tokens that were found in the prefix cache; None before a request has ended."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else None

    @property
    def kv_utilisation(self) -> float | None:
        """Share of the reserved token slots that known tokens fill, over all steps looked at; None before any."""
        return self.kv_held_tokens / self.kv_reserved_tokens if self.kv_reserved_tokens else None
