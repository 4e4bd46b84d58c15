"""Who computes how many tokens in the next step, in the order of a row of `orders/`.

`schedule()` decides and hands out blocks; `commit()` is the only place where a sequence gets further. Who is in work,
and in which state, is the roster's to keep (roster.py).

Drafts live in the plan and never in a sequence: `commit` appends those that stood as if each had had a step of its own.
What was computed for the others lies beyond `num_computed` and is written over by the next step.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import num_blocks_for
from vivace.cache.tiers import BlockTiers
from vivace.schedule.ahead import plan_ahead
from vivace.schedule.blocks import BlockDesk
from vivace.schedule.books import check_books, count_kv_tokens
from vivace.schedule.completion import CompletionEstimator
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.drafts import DraftDesk, draws_of
from vivace.schedule.estimates import Estimates
from vivace.schedule.experience import ReaderExperience
from vivace.schedule.forecast import Room, forecast, place_of
from vivace.schedule.gate import AdmissionGate, timed_out
from vivace.schedule.group import RequestGroup, build_group
from vivace.schedule.layer_blocks import LocalBlocks
from vivace.schedule.orders.table import build_order
from vivace.schedule.preemption import choose_victim
from vivace.schedule.prefixes import Found
from vivace.schedule.prompt_budget import PromptBudget
from vivace.schedule.roster import Roster
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.schedule.serving import num_resting, split_running
from vivace.schedule.step_cost import StepCostModel, num_pairs
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns
from vivace.types.draft import Speculator
from vivace.types.errors import RequestError, VivaceError
from vivace.types.events import EngineEvent, FailEvent, FinishReason, TokenEvent
from vivace.types.place import RequestPlace
from vivace.types.request import GenerationRequest
from vivace.types.step import Draw, SequenceShare, StepPlan, StepResult


class Scheduler:
    """Continuous batching with chunked prompts over paged KV blocks.

    Every step serves each running stream with its one token and gives the rest of the budget to prompts, in order.
    A sequence starts when the blocks of all its known tokens are there and enough remain for those that run; when they
    run short all the same, the last in order gives up its blocks and computes again later.

    Args:
        config: sizes.
        pool: the blocks to hand out; nobody else takes from it.
        clock: what orders and targets are measured with.
        speculator: guesses the next tokens of streams; None: nobody does.
        tiers: keep what the pool forgets; None: it is computed again.
        local: the blocks of layers that see a window of their own, if the model has such.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        pool: BlockPool,
        clock: Clock = now_ns,
        speculator: Speculator | None = None,
        tiers: BlockTiers | None = None,
        *,
        local: LocalBlocks | None = None,
    ) -> None:
        self._config = config
        self._pool = pool
        self._clock = clock
        self.estimates = Estimates(StepCostModel(), CompletionEstimator())
        self.blocks = BlockDesk(config, pool, tiers, self.estimates, local)
        self._desk = DraftDesk(speculator, self.blocks)
        self.gate = AdmissionGate(config.queue)
        self.order = build_order(config.order, self.estimates, config.inter_token_s)
        self.readers = ReaderExperience(config.order)
        self._roster = Roster(self.blocks, self.order)
        self._num_arrivals = 0
        self._num_sequences = 0
        self._now_s = 0.0
        self._lacks_blocks = False

    @property
    def running(self) -> Mapping[int, Sequence]:
        """Sequences that hold blocks, by id."""
        return self._roster.running

    @property
    def num_preemptions(self) -> int:
        """How often a running sequence had to give up its blocks."""
        return self._roster.num_preemptions

    @property
    def num_waiting(self) -> int:
        """Sequences that wait to run, those that wait for a shared prompt left out."""
        return len(self._roster.waiting)

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Requests that have not ended."""
        return tuple(self._roster.groups)

    @property
    def has_work(self) -> bool:
        """Whether `schedule` would return shares."""
        return bool(self._roster.groups)

    def _read_clock(self) -> float:
        return self._clock() / NS_PER_S

    def is_live(self, request_id: str) -> bool:
        """Whether a request has not ended."""
        return request_id in self._roster.groups

    def add(self, request: GenerationRequest, seed: int) -> None:
        """Queue a request. `seed` stands in for the request's own.

        Raises:
            RequestError: a request of that id is in work.
            ContextLengthError: it can never fit.
            OverloadedError: the queue is full, or the request could not be served in time.
        """
        if self.is_live(request.request_id):
            raise RequestError(f"A request {request.request_id!r} is in work.", "Give each request its own id.")
        request = self._config.queue.with_targets(request)
        first_id, arrival = self._num_sequences, self._num_arrivals
        group = build_group(request, seed, self._config, self.blocks, arrival=arrival, first_id=first_id)
        now_s, expected = self._read_clock(), self.estimates.completion.expect(request)
        for sequence in group.live.values():
            sequence.arrived_s, sequence.expected_tokens = now_s, expected
        self._pass_gate(group.live[0])
        self._num_arrivals += 1
        self._num_sequences += request.n
        self._roster.join(group)
        self.gate.watch(group.live[0])

    def cancel(self, request_id: str, choice: int | None = None) -> list[EngineEvent]:
        """End a request, or one choice of it; returns the events of those that had not ended."""
        group = self._roster.groups.get(request_id)
        if group is None:
            return []
        cancelled = [sequence for number, sequence in group.live.items() if choice in (None, number)]
        events: list[EngineEvent] = []
        for sequence in cancelled:
            self._finish(sequence, "cancelled", sequence.num_generated, events)
        return events

    def fail(self, request_id: str, error: VivaceError) -> list[EngineEvent]:
        """End a request with an error; nothing happens to one that has ended."""
        group = self._roster.groups.get(request_id)
        if group is None:
            return []
        self._roster.drop_all(group)
        return [FailEvent(request_id, error)]

    def expire(self) -> list[EngineEvent]:
        """Fail the requests whose time in the queue is over; to be called before `schedule`."""
        events: list[EngineEvent] = []
        now_s = self._read_clock()
        for request_id in self.gate.take_expired(now_s):
            group = self._roster.groups.get(request_id)
            first = None if group is None else group.live.get(0)
            if first is not None and first.num_cached is None:
                self.gate.num_timed_out += 1
                events += self.fail(request_id, timed_out(now_s - first.arrived_s))
        return events

    def schedule(self) -> StepPlan:
        """Decide the next step. Empty only when there is nothing to do."""
        self._now_s = self._read_clock()
        self.blocks.decide()
        self._grow_running()
        self._admit_waiting()
        return StepPlan(tuple(self._shares()), *self.blocks.take_copies(), *self.blocks.take_writes())

    def plan_ahead(self, plan: StepPlan) -> StepPlan | None:
        """What follows the step under way if none of its tokens ends an answer (see ahead.py); None: that is open."""
        has_newcomers = self._roster.waiting and len(self.running) < self._config.max_sequences
        is_open = has_newcomers or self.order.knows_readers or self._desk.may_draft(len(plan.shares))
        return None if is_open else plan_ahead(plan, self._roster, self.blocks)

    def commit(self, plan: StepPlan, result: StepResult) -> list[EngineEvent]:
        """Write what a step brought into its sequences and return what there is to tell."""
        events: list[EngineEvent] = []
        self._now_s = self._read_clock()
        draws, running = iter(result.draws), self._roster.running
        for share in plan.shares:
            mine = draws_of(share, draws)
            sequence = running.get(share.sequence_id)
            if sequence is None:  # its request failed on a draw of this very step
                continue
            if share.sequence_id in result.observed:
                self.blocks.note_observed(sequence, share, result.observed[share.sequence_id])
            sequence.num_computed = share.start + share.count - len(share.drafts)
            self.blocks.advance(sequence)
            for number, draw in enumerate(mine):
                if number:  # the draw before was a draft, and so its row is computed
                    if sequence.state is not SequenceState.RUNNING:
                        break
                    sequence.num_computed += 1
                    self.blocks.advance(sequence)
                self._take(sequence, draw, events)
        return events

    def set_speculation(self, is_on: bool) -> None:
        """Whether streams get drafts from the next step on, where somebody guesses at all; no text changes."""
        self._desk.is_paused = not is_on

    def note_reader(self, request_id: str, lead_s: float, *, is_all: bool) -> None:
        """Text of so many seconds waits for the reader of a request (see `Order.note_reader`)."""
        group = self._roster.groups.get(request_id)
        for sequence in () if group is None else group.live.values():
            self.order.note_reader(sequence, self._read_clock(), lead_s, is_all=is_all)

    def note_step(self, plan: StepPlan, elapsed_ms: float) -> None:
        """The step of this plan took so long, sampling included."""
        self.estimates.steps.observe(plan.num_tokens, num_pairs(plan.shares), elapsed_ms)

    def kv_tokens(self) -> tuple[int, int]:
        """Known tokens that have a slot, and slots of held blocks; shared blocks count once."""
        return count_kv_tokens(self._pool, self.running.values())

    def forget_prefixes(self) -> None:
        """Trust no cached block any more, as after a step that broke halfway."""
        self.blocks.forget()

    def check(self) -> None:
        """Raise AssertionError unless blocks, tables and states agree."""
        check_books(self.blocks, self.running, self._roster.groups.values())

    # Shares -----------------------------------------------------------------------------------------------------------

    def _shares(self) -> list[SequenceShare]:
        streams, prompts = split_running(
            self.running.values(), self.order, self._now_s, self._config.max_sequences, self._why_rest()
        )
        prompt_shares = self._prompt_shares(prompts, streams)
        num_rows = len(streams) + sum(share.count for share in prompt_shares)
        drafts_of_all = self._desk.drafts_for(streams, num_rows, self._config.max_batch_tokens - num_rows)
        shares = [
            SequenceShare(sequence.sequence_id, sequence.num_computed, 1 + len(drafts), True, drafts)
            for sequence, drafts in zip(streams, drafts_of_all, strict=True)
        ]
        return shares + prompt_shares

    def _why_rest(self) -> bool | None:
        """Whether somebody waits for a seat; None where blocks are short: who rests keeps them for longer."""
        return None if self._lacks_blocks else bool(self._roster.waiting)

    def _prompt_shares(self, prompts: list[Sequence], streams: list[Sequence]) -> list[SequenceShare]:
        shares: list[SequenceShare] = []
        budget = PromptBudget(self._config, self.estimates, streams) if prompts else None
        for sequence in self._in_order(prompts):
            count = 0 if budget is None else budget.take(sequence)
            if count == 0:
                break
            is_last = count == sequence.num_pending
            shares.append(SequenceShare(sequence.sequence_id, sequence.num_computed, count, is_last))
        return shares

    # Blocks -----------------------------------------------------------------------------------------------------------

    def _grow_running(self) -> None:
        """Give each running sequence the slots of its known tokens, at the cost of the last in order if need be."""
        for sequence in self._in_order(self.blocks.short_ones()):
            while sequence.state is SequenceState.RUNNING and not self.blocks.grow(sequence):
                self._roster.preempt(self._victim())

    def _admit_waiting(self) -> None:
        """Start those who wait, in order, until one does not fit: nobody overtakes."""
        waiting, running = self._roster.waiting, self.running
        self._lacks_blocks = False
        resting = num_resting(running.values(), self.order, self._now_s) if waiting else 0
        num_seats = self._config.max_sequences + resting
        if not waiting or len(running) >= num_seats:
            return
        waiting.sort(self._now_s)
        num_pending = self._num_pending_prompt()
        while (sequence := waiting.first()) is not None and len(running) < num_seats:
            found = self.blocks.find(sequence)
            if self._shares_with_running(sequence, found):
                return
            own = sequence.num_known - found.num_tokens
            if not self.blocks.may_start(sequence, found, self._headroom(num_pending + own)):
                self._lacks_blocks = True
                return
            if not self.blocks.start(sequence, found):
                continue  # a file was damaged, and is not found again
            num_pending += own
            is_first_start = sequence.num_cached is None
            self._roster.start(sequence)
            if is_first_start and self.order.follows_service:
                waiting.sort(self._now_s)

    def _shares_with_running(self, sequence: Sequence, found: Found) -> bool:
        """Whether one before it in order computes a prefix that they share: it starts when that can be found.

        Not computing it twice costs nobody anything: rows of prompts go to who is first in order, so it would hardly
        have got further meanwhile. Who has to start in time does not wait.
        """
        if sequence.request.service_level.queue_timeout_s is not None:
            return False
        mine = self.order.key(sequence, self._now_s)
        before = (other for other in self.running.values() if self.order.key(other, self._now_s) <= mine)
        return self.blocks.is_coming(sequence, found, before)

    def place_of(self, request_id: str) -> RequestPlace | None:
        """Where a request is before its first token; None when it is not in work."""
        group = self._roster.groups.get(request_id)
        if group is None:
            return None
        first = next(iter(group.live.values()))
        return place_of(first, self._roster.waiting.ahead_of(first, self._read_clock()), self._room(), self.estimates)

    def _pass_gate(self, newcomer: Sequence) -> None:
        tenants = Counter(entry.request.service_level.tenant for entry in self._roster.waiting)
        ahead = self._roster.waiting.ahead_of(newcomer, newcomer.arrived_s)
        self.gate.check(newcomer, tenants, forecast(newcomer, ahead, self._room(), self.estimates))

    def _room(self) -> Room:
        return Room(self._config, self._pool, tuple(self.running.values()))

    def _in_order(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        return sorted(sequences, key=lambda sequence: self.order.key(sequence, self._now_s))

    def _victim(self) -> Sequence:
        """Who gives up its blocks, of those that got a token since they started to run (see preemption.py).

        Whoever needs a block has got one, so there is a victim, and nobody is pre-empted twice without progress. Only
        prompts that take their blocks bit by bit may need one before anybody has got a token.
        """
        grown = [sequence for sequence in self.running.values() if sequence.num_known > sequence.num_known_at_start]
        return choose_victim(self._in_order(grown or self.running.values()), self.blocks.loss_of)

    def _num_pending_prompt(self) -> int:
        return sum(sequence.num_pending for sequence in self.running.values() if sequence.num_pending > 1)

    def _headroom(self, num_pending_prompt: int) -> int:
        """Blocks that a newcomer has to leave, so as not to pre-empt anybody soon nor to be pre-empted.

        Those that run must be able to grow until all prompts in work, the newcomer's included, have brought a token.
        So a pre-empted sequence always gets further before it can be pre-empted again.
        """
        num_steps = 1 + -(-num_pending_prompt // self._config.least_prompt_tokens)
        return len(self.running) * num_blocks_for(num_steps * self._desk.most_new_tokens)

    def _fork(self, group: RequestGroup, source: Sequence) -> None:
        num_pending = self._num_pending_prompt()

        def may_fork(sequence: Sequence) -> bool:
            has_place = len(self.running) < self._config.max_sequences
            return has_place and self.blocks.may_fork(sequence, self._headroom(num_pending))

        self._roster.fork(group, source, may_fork)

    # Ends -------------------------------------------------------------------------------------------------------------

    def _take(self, sequence: Sequence, draw: Draw, events: list[EngineEvent]) -> None:
        """Append a drawn token to its sequence, or end the sequence with it."""
        request_id = sequence.request.request_id
        if draw.error is not None:
            events.extend(self.fail(request_id, draw.error))
            return
        if sequence.request.n > 1 and self._roster.groups[request_id].unforked:
            self._fork(self._roster.groups[request_id], sequence)
        index = sequence.num_generated
        if draw.token_id in sequence.stop_ids:
            self._finish(sequence, "stop", index + 1, events)
            return
        sequence.append(draw.token_id, self._now_s)
        self.order.note_token(sequence)
        if sequence.num_known > sequence.num_covered:
            self.blocks.note_uncovered(sequence)
        events.append(TokenEvent(request_id, sequence.choice, index, draw.token_id, draw.logprob))
        if sequence.num_known >= sequence.max_known:
            self._finish(sequence, "length", index + 1, events)

    def _finish(self, sequence: Sequence, reason: FinishReason, num_generated: int, events: list[EngineEvent]) -> None:
        events.append(sequence.finish_event(reason, num_generated))
        if reason != "cancelled":
            self.estimates.completion.learn(sequence.request, sequence.expected_tokens, num_generated)
            self.readers.note_ended(sequence)
        self._roster.drop(sequence)
