"""From plan to result: the arrays of a step, one forward pass, one draw for each row of logits. Writes no sequence."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vivace.cache.block_table import BlockTable
from vivace.cache.policies import FULL_POLICY, KvPolicy
from vivace.sample.sampler import DrawRow, Sampler
from vivace.schedule.sequence import Sequence
from vivace.speculate.verify import draw_and_compare
from vivace.types.step import Draw, Executor, ForwardBatch, StepPlan, StepResult


class StepRunner:
    """Runs step plans on an executor.

    Args:
        executor: the model with its KV pool.
        sampler: logits to tokens.
        policy: which keys rows see; None: all before them.
    """

    def __init__(self, executor: Executor, sampler: Sampler, policy: KvPolicy | None = None) -> None:
        self._executor = executor
        self._policy = policy or FULL_POLICY
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
        for block, content in plan.block_writes:
            self._executor.write_block(block, content)
        logits = self._executor.forward(build_batch(plan, sequences, self._policy))
        if any(share.drafts for share in plan.shares):
            return StepResult(tuple(self._verified(plan, sequences, logits)))
        rows = [
            DrawRow(sequence.settings, sequence.tokens)
            for sequence in (sequences[share.sequence_id] for share in plan.shares if share.wants_logits)
        ]
        return StepResult(self._sampler.sample(logits, rows))

    def _verified(
        self, plan: StepPlan, sequences: Mapping[int, Sequence], logits: NDArray[np.float32]
    ) -> Iterator[Draw]:
        """The draws of a plan with drafts; each share's rows follow each other."""
        first = 0
        for share in plan.shares:
            if share.wants_logits:
                owner = sequences[share.sequence_id]
                end = first + 1 + len(share.drafts)
                yield from draw_and_compare(
                    self._sampler, logits[first:end], owner.settings, owner.tokens, share.drafts
                )
                first = end


def build_batch(plan: StepPlan, sequences: Mapping[int, Sequence], policy: KvPolicy = FULL_POLICY) -> ForwardBatch:
    """The arrays an executor reads for a plan.

    Gathered in lists and turned into arrays once: most steps have few rows, and a numpy call costs more than a row.
    """
    token_ids: list[int] = []
    positions: list[int] = []
    starts = [0]
    logit_rows: list[int] = []
    tables: list[BlockTable] = []
    for share in plan.shares:
        owner = sequences[share.sequence_id]
        end = share.start + share.count
        token_ids += owner.tokens[share.start : end - len(share.drafts)].tolist()
        token_ids += share.drafts
        positions += range(share.start, end)
        starts.append(len(positions))
        if share.wants_logits:
            logit_rows += range(len(positions) - 1 - len(share.drafts), len(positions))
        tables.append(owner.table)
    row_positions = np.array(positions, dtype=np.int32)
    window_starts, sink_ends = policy.sight(row_positions) or (None, None)
    return ForwardBatch(
        token_ids=np.array(token_ids, dtype=np.int32),
        positions=row_positions,
        sequence_starts=np.array(starts, dtype=np.int32),
        block_tables=_stacked(tables),
        logit_rows=np.array(logit_rows, dtype=np.int32),
        window_starts=window_starts,
        sink_ends=sink_ends,
    )


def _stacked(tables: list[BlockTable]) -> NDArray[np.int32]:
    """Tables as rows, padded with 0."""
    if len(tables) == 1:
        return tables[0].entries[None]
    stacked = np.zeros((len(tables), max(table.num_blocks for table in tables)), dtype=np.int32)
    for row, table in zip(stacked, tables, strict=True):
        row[: table.num_blocks] = table.entries
    return stacked
