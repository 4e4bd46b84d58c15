"""Numbers of a running engine, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A moment's view: sequences and KV blocks now, then totals since the engine began.

    `num_computed_tokens` counts rows of all steps, prompts and answers, again after a pre-emption;
    `num_generated_tokens` tokens told; `num_cached_tokens` prompt tokens found in the prefix cache;
    `num_drafted_tokens` guesses that steps verified, `num_accepted_tokens` those of them that stood.
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
