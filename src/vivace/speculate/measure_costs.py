"""Times of verifying steps on an executor that is loaded: what a planner needs beside acceptance."""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vivace.speculate.costs import StepTimes
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch

REPEATS = 7
WARM_UP_STEPS = 1
START_ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 32)  # kernels work in tiles: a row more may even cost less
START_REPEATS = 5
START_CONTEXT = 128
START_LIMIT_S = 2.0
ATTENTION_ROWS, ATTENTION_CONTEXT = 8, 512


def measure_step_costs(
    executor: Executor,
    row_counts: Sequence[int],
    *,
    context: int = START_CONTEXT,
    repeats: int = REPEATS,
    limit_s: float = math.inf,
    clock: Clock = now_ns,
    pick: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[int, float]:
    """Milliseconds of a step of one sequence by its number of rows, all of which give logits.

    Args:
        executor: with KV memory for `context + max(row_counts)` positions; what its first blocks hold is lost.
        row_counts: rows to time, in turns, so that a busy moment falls on all of them.
        context: tokens before the rows.
        repeats: steps of each row count.
        limit_s: begin no step after so many seconds; row counts that were not timed are left out.
        clock: to time with.
        pick: the figure of several steps of the same rows.

    Raises:
        ConfigError: the executor is too small.
    """
    last = context + max(row_counts)
    num_blocks = -(-last // BLOCK_SIZE)
    if num_blocks > executor.num_blocks or last > executor.max_rows:
        raise ConfigError(f"An executor of {executor.num_blocks} blocks cannot time {last} positions.")
    began_ns = clock()
    _forward(executor, 0, context)
    times: dict[int, list[float]] = {count: [] for count in row_counts}
    for turn in range(WARM_UP_STEPS + repeats):
        for count in row_counts:
            started_ns = clock()
            if started_ns - began_ns > limit_s * NS_PER_S:
                break
            _forward(executor, context, count)
            if turn >= WARM_UP_STEPS:
                times[count].append((clock() - started_ns) / 1e6)
    return {count: pick(mine) for count, mine in times.items() if mine}


def measure_at_start(executor: Executor, *, clock: Clock = now_ns) -> StepTimes:
    """What an engine knows of its steps when it begins to serve; empty for an executor that is very small or slow.

    The quickest of several steps counts: on a busy machine the others tell of the company.
    """
    room = min(executor.max_rows, executor.num_blocks * BLOCK_SIZE)
    context = min(START_CONTEXT, room // 2)
    rows = [count for count in START_ROWS if count <= room - context]
    if context < 1 or not rows:
        return StepTimes()
    time_steps = partial(
        measure_step_costs, executor, repeats=START_REPEATS, limit_s=START_LIMIT_S, clock=clock, pick=min
    )
    times = time_steps(rows, context=context)
    far, few = min(ATTENTION_CONTEXT, room - ATTENTION_ROWS), ATTENTION_ROWS
    if few not in times or far <= context:
        return StepTimes(times, context)
    later = time_steps((few,), context=far).get(few, times[few])
    return StepTimes(times, context, max(0.0, later - times[few]) / (few * (far - context)))


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
