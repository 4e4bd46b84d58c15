"""Times of verifying steps on an executor that is loaded: what a planner needs beside acceptance."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch

REPEATS = 7
WARM_UP_STEPS = 2


def measure_step_costs(
    executor: Executor, row_counts: Sequence[int], context: int = 128, repeats: int = REPEATS
) -> dict[int, float]:
    """Milliseconds of a step of one sequence by its number of rows, all of which give logits; medians.

    Args:
        executor: with KV memory for `context + max(row_counts)` positions; what its first blocks hold is lost.
        row_counts: rows to time, in turns, so that a busy moment falls on all of them.
        context: tokens before the rows.
        repeats: steps of each row count.

    Raises:
        ConfigError: the executor is too small.
    """
    last = context + max(row_counts)
    num_blocks = -(-last // BLOCK_SIZE)
    if num_blocks > executor.num_blocks or last > executor.max_rows:
        raise ConfigError(f"An executor of {executor.num_blocks} blocks cannot time {last} positions.")
    _forward(executor, 0, context)
    times: dict[int, list[float]] = {count: [] for count in row_counts}
    for turn in range(WARM_UP_STEPS + repeats):
        for count in row_counts:
            started_s = time.perf_counter()
            _forward(executor, context, count)
            if turn >= WARM_UP_STEPS:
                times[count].append((time.perf_counter() - started_s) * 1e3)
    return {count: statistics.median(mine) for count, mine in times.items()}


def _forward(executor: Executor, start: int, count: int) -> None:
    """Compute `count` rows of a made-up sequence in the first blocks."""
    num_blocks = -(-(start + count) // BLOCK_SIZE)
    positions = np.arange(start, start + count, dtype=np.int32)
    executor.forward(
        ForwardBatch(
            token_ids=positions % executor.vocab_size,
            positions=positions,
            sequence_starts=np.array([0, count], dtype=np.int32),
            block_tables=np.arange(num_blocks, dtype=np.int32)[None],
            logit_rows=np.arange(count, dtype=np.int32),
        )
    )
