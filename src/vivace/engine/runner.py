"""From plan to result: the arrays of a step, one forward pass, one draw for each row of logits. Writes no sequence."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vivace.engine.precision import PrecisionPolicy
from vivace.sample.sampler import Sampler, draws_of_tokens
from vivace.sample.settings import DrawRow
from vivace.schedule.sequence import Sequence
from vivace.speculate.verify import draw_and_compare
from vivace.types.relay import RelayExecutor
from vivace.types.step import BLOCK_SIZE, Draw, Executor, ForwardBatch, PatientExecutor, StepPlan, StepResult

Ints = NDArray[np.int32]


def do_nothing() -> None:
    """What there is to do while the executor computes, when nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The step that follows the one under way by itself, and the rows that its tokens are drawn from."""

    plan: StepPlan
    rows: list[DrawRow]
    stops: list[Ints]


class StepRunner:
    """Runs step plans on an executor.

    Args:
        executor: the model with its KV pool.
        sampler: logits to tokens.
        has_local_layers: some layers have blocks of their own.
        precision: how much of nested weights rows read; None: all of it.
    """

    def __init__(
        self,
        executor: Executor,
        sampler: Sampler,
        *,
        has_local_layers: bool = False,
        precision: PrecisionPolicy | None = None,
    ) -> None:
        self._executor = executor
        self._patient = executor if isinstance(executor, PatientExecutor) else None
        self._relay = executor if isinstance(executor, RelayExecutor) else None
        self._prepared: PreparedStep | None = None
        self.under_way: StepPlan | None = None  # began by itself after the step before; `run` takes it
        self._sampler = sampler
        self._has_local_layers = has_local_layers
        self._precision = precision

    @property
    def can_relay(self) -> bool:
        """Whether a step can begin by itself when the one before it is done."""
        return self._relay is not None

    def run(
        self, plan: StepPlan, sequences: Mapping[int, Sequence], meanwhile: Callable[[], None] = do_nothing
    ) -> StepResult:
        """Compute the plan's rows and draw the tokens it wants.

        Args:
            plan: with at least one share; `under_way` if there is one.
            sequences: the running ones, by id.
            meanwhile: done once while the executor computes, or before it does where it cannot do both. It leaves plan
                and sequences alone, and may `prepare` what follows.

        Raises:
            Exception: whatever the executor raises; no sequence has changed then.
        """
        is_under_way, self.under_way, self._prepared = plan is self.under_way, None, None
        batch = None if is_under_way else self._begin(plan, sequences)
        try:
            meanwhile()
        except BaseException:  # what was started is finished whatever happens
            self._end(batch)
            raise
        if self._prepared is not None:
            return self._pass_on(self._prepared)
        logits = self._end(batch)
        has_observed = batch is not None and batch.observe_rows is not None
        observed = self._observed(plan, sequences) if has_observed else {}
        if any(share.drafts for share in plan.shares):
            return StepResult(tuple(self._verified(plan, sequences, logits)), observed)
        rows = [
            DrawRow(sequence.settings, sequence.tokens)
            for sequence in (sequences[share.sequence_id] for share in plan.shares if share.wants_logits)
        ]
        return StepResult(self._sampler.sample(logits, rows), observed)

    def prepare(self, following: StepPlan, sequences: Mapping[int, Sequence]) -> None:
        """Let a step begin by itself when the one that runs is done; to be called in its `meanwhile`.

        It does not where a token ends its answer, or is to be drawn with more than the executor knows.

        Args:
            following: one row for each share of the step that runs, in its order.
            sequences: the running ones, by id.
        """
        owners = [sequences[share.sequence_id] for share in following.shares]
        if self._relay is None or not all(owner.settings.draws_plainly(owner.num_known) for owner in owners):
            return
        self._relay.prepare(self._batch(following, sequences))
        rows = [DrawRow(owner.settings, owner.tokens) for owner in owners]
        self._prepared = PreparedStep(following, rows, [owner.stops for owner in owners])

    def forgo(self) -> None:
        """Let nothing follow by itself after all; in `meanwhile`, as `prepare`."""
        self._prepared = None

    def hold(self) -> None:
        """As `forgo`, from any thread and at any time; too late for a step that has begun."""
        if self._relay is not None:
            self._relay.hold()

    def settle(self) -> None:
        """Let the executor finish what is under way, and forget what it brings."""
        if self.under_way is not None:
            self.under_way = None
            self._end(None)

    def _begin(self, plan: StepPlan, sequences: Mapping[int, Sequence]) -> ForwardBatch:
        if plan.block_copies:
            self._executor.copy_blocks(plan.block_copies)
        if plan.local_copies:
            self._executor.copy_local_blocks(plan.local_copies)
        for block, content in plan.block_writes:
            self._executor.write_block(block, content)
        for block, content in plan.local_writes:
            self._executor.write_local_block(block, content)
        batch = self._batch(plan, sequences)
        if self._patient is not None:
            self._patient.start(batch)
        return batch

    def _end(self, batch: ForwardBatch | None) -> NDArray[np.float32]:
        """Logits of the batch that was begun with; None: it began by itself."""
        if self._patient is not None:
            return self._patient.finish()
        assert batch is not None, "only a patient executor goes on by itself"
        return self._executor.forward(batch)

    def _pass_on(self, prepared: PreparedStep) -> StepResult:
        """Finish, with the prepared step under way after it if nothing speaks against it."""
        assert self._relay is not None
        settings, histories = [row.settings.plain for row in prepared.rows], [row.tokens for row in prepared.rows]
        tokens, logits = self._relay.relay(settings, histories, prepared.stops)
        if logits is not None:
            return StepResult(draws_of_tokens(tokens, logits, prepared.rows))
        self.under_way = prepared.plan
        return StepResult(tuple(map(Draw, tokens)))

    def _batch(self, plan: StepPlan, sequences: Mapping[int, Sequence]) -> ForwardBatch:
        batch = build_batch(plan, sequences, has_local_layers=self._has_local_layers)
        if self._precision is None:
            return batch
        return replace(batch, row_levels=self._precision.levels(batch.positions, len(plan.shares)))

    def _observed(self, plan: StepPlan, sequences: Mapping[int, Sequence]) -> dict[int, NDArray[np.float32]]:
        """The masses of the observed rows of each sequence that has some."""
        masses = self._executor.observed()
        found: dict[int, NDArray[np.float32]] = {}
        first = 0
        for share in plan.shares:
            count = len(_observed_positions(sequences[share.sequence_id], share.start, share.start + share.count))
            if count:
                found[share.sequence_id] = masses[first : first + count]
                first += count
        return found

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


def build_batch(plan: StepPlan, sequences: Mapping[int, Sequence], *, has_local_layers: bool = False) -> ForwardBatch:
    """The arrays an executor reads for a plan.

    Gathered in lists and turned into arrays once: most steps have few rows, and a numpy call costs more than a row.
    """
    token_ids: list[int] = []
    positions: list[int] = []
    starts = [0]
    logit_rows: list[int] = []
    owners = [sequences[share.sequence_id] for share in plan.shares]
    for owner, (_, start, count, wants_logits, drafts) in zip(owners, plan.shares, strict=True):
        if count == 1 and wants_logits:  # a stream, as nearly all are
            token_ids.append(owner.last_token)
            positions.append(start)
            logit_rows.append(len(positions) - 1)
        else:
            token_ids += owner.tokens[start : start + count - len(drafts)].tolist()
            token_ids += drafts
            positions += range(start, start + count)
            if wants_logits:
                logit_rows += range(len(positions) - 1 - len(drafts), len(positions))
        starts.append(len(positions))
    row_positions = np.array(positions, dtype=np.int32)
    window_starts, sink_ends = _sights(owners, starts, row_positions)
    observe_rows = _observed_rows(plan, owners, starts)
    return ForwardBatch(
        token_ids=np.array(token_ids, dtype=np.int32),
        positions=row_positions,
        sequence_starts=np.array(starts, dtype=np.int32),
        block_tables=owners[0].table.board.gather([owner.table for owner in owners]),
        logit_rows=np.array(logit_rows, dtype=np.int32),
        window_starts=window_starts,
        sink_ends=sink_ends,
        slots=_slots(owners, starts, row_positions),
        local_tables=(
            owners[0].local_table.board.gather([owner.local_table for owner in owners]) if has_local_layers else None
        ),
        observe_rows=np.array(observe_rows, dtype=np.int32) if observe_rows else None,
    )


def _observed_rows(plan: StepPlan, owners: list[Sequence], starts: list[int]) -> list[int]:
    """Rows whose attention is to be told."""
    rows: list[int] = []
    for owner, share, first_row in zip(owners, plan.shares, starts, strict=False):
        if owner.retention is not None:
            observed = _observed_positions(owner, share.start, share.start + share.count)
            rows += range(first_row + observed.start - share.start, first_row + observed.stop - share.start)
    return rows


def _observed_positions(owner: Sequence, start: int, end: int) -> range:
    """Positions among [start, end) whose rows are observed; empty ones begin at `start`."""
    if owner.retention is None:
        return range(start, start)
    found = owner.retention.observed(start, end)
    return found if found else range(start, start)


def _sights(owners: list[Sequence], starts: list[int], positions: Ints) -> tuple[Ints, Ints] | tuple[None, None]:
    """What the policies of the sequences let their rows see; one call where all have the same."""
    first = owners[0].policy
    if all(owner.policy is first for owner in owners):
        return first.sight(positions) or (None, None)
    pairs = [
        (slice(start, end), owner.policy.sight(positions[start:end]))
        for owner, start, end in zip(owners, starts, starts[1:], strict=False)
    ]
    if all(sight is None for _, sight in pairs):
        return None, None
    window_starts, sink_ends = np.zeros_like(positions), np.zeros_like(positions)
    for rows, sight in pairs:
        if sight is not None:
            window_starts[rows], sink_ends[rows] = sight
    return window_starts, sink_ends


def _slots(owners: list[Sequence], starts: list[int], positions: Ints) -> Ints | None:
    """Where rows go in tables that blocks were taken out of."""
    if not any(owner.table.num_removed for owner in owners):
        return None
    slots = positions.copy()
    for owner, start, end in zip(owners, starts, starts[1:], strict=False):
        slots[start:end] -= owner.table.num_removed * BLOCK_SIZE
    return slots
