"""Drafts from a model: a smaller one of the same vocabulary, or the first layers of the target itself.

All streams are drafted for together: one pass computes what each still lacks and gives first drafts, each later pass
one more. Drafts are drawn as the target draws, with the same penalties, filters and random numbers: so a draft model
that agrees in distribution agrees in tokens, at any temperature, and an exact one always does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vivace.cache.policies import FULL_POLICY, KvPolicy
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.speculate.draft_memory import DraftMemory
from vivace.telemetry.clock import Clock, now_ns
from vivace.types.draft import DraftPlace
from vivace.types.drawing import Drawer
from vivace.types.step import Executor, ForwardBatch

CATCH_UP_ROWS = 128  # rows of what was missed that one step computes: a prompt is caught up with over several
RATIO_MEMORY = 0.9


@dataclass(slots=True)
class _Job:
    """One stream under way. `start`: position of the first row to compute; `fresh`: tokens of those rows."""

    place: DraftPlace
    count: int
    settings: DrawSettings
    table: NDArray[np.int32]
    start: int
    fresh: list[int]
    drafts: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)


class ModelDrafter:
    """Runs one executor as a draft model.

    Args:
        name: of the row in PROPOSERS it stands for.
        executor: of the target's vocabulary.
        memory: where its keys and values are.
        policy: which keys its rows see: the target's, where the memory is the target's.
        costs_ms: milliseconds of its steps by rows, timed before serving.
        acceptance: share of its drafts that stood when it was tried before serving; None: not known.
        clock: to follow what its passes take.
    """

    def __init__(
        self,
        name: str,
        executor: Executor,
        memory: DraftMemory,
        *,
        policy: KvPolicy = FULL_POLICY,
        costs_ms: dict[int, float] | None = None,
        acceptance: float | None = None,
        clock: Clock = now_ns,
    ) -> None:
        self.name = name
        self.acceptance = acceptance
        self.num_passes = 0
        self._executor = executor
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._sampler = Sampler(executor if isinstance(executor, Drawer) else None)
        costs = costs_ms or {1: 1.0}
        self._rows = sorted(costs)
        self._ms = [costs[row] for row in self._rows]
        self._ratio = 1.0

    def num_pending(self, place: DraftPlace) -> int:
        """Known tokens of a stream that a first draft needs computed; at least 1."""
        return self._memory.num_pending(place)

    def milliseconds(self, num_rows: int) -> float:
        """What a pass of so many rows takes, as passes have gone of late."""
        slope = (self._ms[-1] - self._ms[0]) / max(1, self._rows[-1] - self._rows[0])
        beyond = max(0, num_rows - self._rows[-1]) * slope
        return self._ratio * (float(np.interp(num_rows, self._rows, self._ms)) + beyond)

    def draft(self, places: Sequence[DraftPlace], counts: Sequence[int]) -> list[tuple[int, ...]]:
        """At most so many drafts for each stream; fewer, or none, where a prompt is not caught up with yet."""
        jobs = [self._begin(place, count) for place, count in zip(places, counts, strict=True)]
        live = [job for job in jobs if job is not None]
        room = min(self._executor.max_rows, CATCH_UP_ROWS + len(live))
        for index, job in enumerate(live):
            take = min(len(job.fresh), room - (len(live) - 1 - index))
            room -= take
            if take < len(job.fresh):
                job.fresh, job.count = job.fresh[:take], 0
        while live:
            self._advance(live)
            live = [job for job in live if len(job.drafts) < job.count]
        for done in jobs:
            if done is not None:
                self._memory.note(done.place, done.start - len(done.computed), done.computed)
        return [() if job is None else tuple(job.drafts) for job in jobs]

    def forget(self, sequence_id: int) -> None:
        """A sequence has ended."""
        self._memory.forget(sequence_id)

    def close(self) -> None:
        """Free the executor."""
        self._executor.close()

    def _begin(self, place: DraftPlace, count: int) -> _Job | None:
        if count < 1:
            return None
        start = len(place.tokens) - self._memory.num_pending(place)
        table = self._memory.reserve(place, len(place.tokens) + count - 1)
        if table is None:
            return None
        settings = DrawSettings(place.sampling, place.seed, place.owner[1], place.num_prompt, grammar=place.grammar)
        return _Job(place, count, settings, table, start, place.tokens[start:].tolist())

    def _advance(self, jobs: list[_Job]) -> None:
        """One pass: a draft more for each job that has computed all it knows."""
        began_ns = self._clock()
        batch = self._batch(jobs)
        logits = self._executor.forward(batch)
        drawing = [job for job in jobs if job.count]
        self._draw(drawing, logits)
        for job in jobs:
            job.start += len(job.fresh)
            job.computed += job.fresh
            job.fresh = job.drafts[-1:]
        self.num_passes += 1
        expected = self.milliseconds(len(batch.token_ids)) / self._ratio
        elapsed = (self._clock() - began_ns) / 1e6
        if elapsed > 0:
            bounded = min(max(elapsed / expected, self._ratio / 3), self._ratio * 3)
            self._ratio = RATIO_MEMORY * self._ratio + (1 - RATIO_MEMORY) * bounded

    def _draw(self, jobs: Sequence[_Job], logits: NDArray[np.float32]) -> None:
        """A token for each job."""
        rows = [
            DrawRow(job.settings, np.concatenate((job.place.tokens, np.array(job.drafts, dtype=np.int32))))
            for job in jobs
        ]
        for job, draw in zip(jobs, self._sampler.sample(logits, rows), strict=True):
            if draw.error is None:
                job.drafts.append(draw.token_id)
            else:
                job.count = len(job.drafts)  # a row that says nothing ends the guess, and nothing else

    def _batch(self, jobs: list[_Job]) -> ForwardBatch:
        token_ids: list[int] = []
        positions: list[int] = []
        starts = [0]
        logit_rows: list[int] = []
        tables = np.zeros((len(jobs), max(len(job.table) for job in jobs)), dtype=np.int32)
        for row, job in enumerate(jobs):
            token_ids += job.fresh
            positions += range(job.start, job.start + len(job.fresh))
            starts.append(len(positions))
            tables[row, : len(job.table)] = job.table
            if job.count:
                logit_rows.append(len(positions) - 1)
        row_positions = np.array(positions, dtype=np.int32)
        window_starts, sink_ends = self._policy.sight(row_positions) or (None, None)
        return ForwardBatch(
            token_ids=np.array(token_ids, dtype=np.int32),
            positions=row_positions,
            sequence_starts=np.array(starts, dtype=np.int32),
            block_tables=tables,
            logit_rows=np.array(logit_rows, dtype=np.int32),
            window_starts=window_starts,
            sink_ends=sink_ends,
        )
