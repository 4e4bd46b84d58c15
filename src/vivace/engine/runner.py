"""From plan to result: the arrays of a step, one forward pass, one draw for each row of logits. Writes no sequence."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vivace.sample.sampler import DrawRow, Sampler
from vivace.schedule.sequence import Sequence
from vivace.types.step import Executor, ForwardBatch, StepPlan, StepResult


class StepRunner:
    """Runs step plans on an executor.

    Args:
        executor: the model with its KV pool.
        sampler: logits to tokens.
    """

    def __init__(self, executor: Executor, sampler: Sampler) -> None:
        self._executor = executor
        self._sampler = sampler

    def run(self, plan: StepPlan, sequences: Mapping[int, Sequence]) -> StepResult:
        """Compute the plan's rows and draw the tokens it wants.

        Args:
            plan: with at least one share.
            sequences: the running ones, by id.

        Raises:
            Exception: whatever the executor raises; no sequence has changed then.
        """
        if plan.block_copies:
            self._executor.copy_blocks(plan.block_copies)
        logits = self._executor.forward(build_batch(plan, sequences))
        rows = [
            DrawRow(sequence.settings, sequence.tokens)
            for sequence in (sequences[share.sequence_id] for share in plan.shares if share.wants_logits)
        ]
        return StepResult(self._sampler.sample(logits, rows))


def build_batch(plan: StepPlan, sequences: Mapping[int, Sequence]) -> ForwardBatch:
    """The arrays an executor reads for a plan."""
    shares = plan.shares
    owners = [sequences[share.sequence_id] for share in shares]
    starts = np.zeros(len(shares) + 1, dtype=np.int32)
    np.cumsum([share.count for share in shares], out=starts[1:])
    if int(starts[-1]) == len(shares):
        positions = np.array([share.start for share in shares], dtype=np.int32)
        token_ids = np.array(
            [owner.tokens[share.start] for owner, share in zip(owners, shares, strict=True)], dtype=np.int32
        )
    else:
        positions = np.concatenate([np.arange(share.start, share.start + share.count) for share in shares])
        token_ids = np.concatenate(
            [owner.tokens[share.start : share.start + share.count] for owner, share in zip(owners, shares, strict=True)]
        )
    wanted = np.array([share.wants_logits for share in shares], dtype=bool)
    return ForwardBatch(
        token_ids=token_ids,
        positions=positions.astype(np.int32, copy=False),
        sequence_starts=starts,
        block_tables=_block_tables(owners),
        logit_rows=starts[1:][wanted] - 1,
    )


def _block_tables(owners: list[Sequence]) -> NDArray[np.int32]:
    tables = np.zeros((len(owners), max(owner.table.num_blocks for owner in owners)), dtype=np.int32)
    for row, owner in zip(tables, owners, strict=True):
        row[: owner.table.num_blocks] = owner.table.entries
    return tables
