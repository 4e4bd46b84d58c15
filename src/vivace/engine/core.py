"""The engine: plan, run, commit, one step at a time. Single-threaded and without I/O; `loop.py` gives it a thread.

Owns the executor, the scheduler and the recorder.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

from vivace.cache.block_pool import BlockPool
from vivace.cache.tiers import BlockTiers
from vivace.engine.precision import PrecisionPolicy
from vivace.engine.recorder import EngineRecorder
from vivace.engine.runner import StepRunner, do_nothing
from vivace.engine.stats import EngineStats
from vivace.sample.sampler import Sampler
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.drafts import decode_step, is_decode
from vivace.schedule.layer_blocks import LocalBlocks
from vivace.schedule.scheduler import Scheduler
from vivace.telemetry.clock import Clock, now_ns
from vivace.telemetry.timeline import StageTimeline
from vivace.types.draft import Speculator
from vivace.types.drawing import Drawer
from vivace.types.errors import ConfigError, EngineError, VivaceError
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, TokenEvent
from vivace.types.place import RequestPlace
from vivace.types.request import GenerationRequest
from vivace.types.step import BlockContent, Executor, LocalLayers, StepPlan

logger = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 3
NOTHING: Mapping[bytes, BlockContent] = {}
Question = Callable[[], bool]


def never() -> bool:
    """Whether the engine may run ahead, when nobody says otherwise."""
    return False


def always() -> bool:
    """The same, of who asks nothing of the engine between two steps."""
    return True


KV_LOOK_STEPS = 8  # the use of KV memory is looked at every so many steps


class Engine:
    """Answers many requests at once on one executor.

    Args:
        executor: the model with its KV pool; closed by `close`.
        config: sizes of the scheduler.
        clock: for timelines, orders, targets and the speculator's costs.
        speculator: guesses tokens that a step verifies; None: a step brings one token a stream.
        tiers: keep the blocks that the pool forgets, over this executor's memory; closed by `close`.
        local: the layers with blocks of their own, if the model has such.
        precision: how much of nested weights rows read; None: all of it.

    Raises:
        ConfigError: the executor takes fewer rows a step than the scheduler may plan.
    """

    def __init__(
        self,
        executor: Executor,
        config: SchedulerConfig | None = None,
        clock: Clock = now_ns,
        speculator: Speculator | None = None,
        tiers: BlockTiers | None = None,
        *,
        local: LocalLayers | None = None,
        precision: PrecisionPolicy | None = None,
    ) -> None:
        config = config or SchedulerConfig()
        if executor.max_rows < config.max_batch_tokens:
            raise ConfigError(
                f"max_batch_tokens is {config.max_batch_tokens} and the executor takes {executor.max_rows} rows.",
                f"Lower max_batch_tokens to {executor.max_rows}.",
            )
        self._executor = executor
        self._pool = BlockPool(executor.num_blocks, config.eviction)
        self._clock = clock
        self._speculator = speculator
        self.tiers = tiers
        self._local = (
            LocalBlocks(BlockPool(local.num_blocks, config.eviction), local.window, local.first) if local else None
        )
        self.scheduler = Scheduler(config, self._pool, clock, speculator, tiers, local=self._local)
        sampler = Sampler(executor if isinstance(executor, Drawer) else None)
        self._runner = StepRunner(executor, sampler, has_local_layers=local is not None, precision=precision)
        self._recorder = EngineRecorder(clock)
        self._num_failures_in_a_row = 0
        self._unnoted: tuple[StepPlan, float] | None = None  # the last step and its milliseconds
        self._began_ns = 0  # of the step that runs

    @property
    def healthy(self) -> bool:
        """False once several steps in a row have failed."""
        return self._num_failures_in_a_row < MAX_FAILURES_IN_A_ROW

    @property
    def has_work(self) -> bool:
        """Whether `step` would compute something."""
        return self.scheduler.has_work

    @property
    def is_ahead(self) -> bool:
        """Whether a step is under way that began by itself. Until the next `step` nothing else may be asked then."""
        return self._runner.under_way is not None

    def hold(self) -> None:
        """Somebody is about to ask for something: begin no step before that. May be called from any thread."""
        self._runner.hold()

    def is_live(self, request_id: str) -> bool:
        """Whether a request has not ended."""
        return self.scheduler.is_live(request_id)

    def add(self, request: GenerationRequest, timeline: StageTimeline | None = None) -> None:
        """Take a request; its events come from `step`.

        Args:
            request: a valid one. Without a seed, one is drawn now.
            timeline: in its stage "queued"; the engine enters "prefill" and "decode", and ends it.

        Raises:
            RequestError: the id is in work, or the request can never fit.
            OverloadedError: the queue is full, or the request could not be served in time.
        """
        self._note_last()
        seed = request.sampling.seed
        self.scheduler.add(request, secrets.randbits(64) if seed is None else seed)
        self._recorder.note_request(request.request_id, timeline)

    def cancel(self, request_id: str, choice: int | None = None) -> list[EngineEvent]:
        """End a request, or one choice of it, and free its blocks; returns its last events, none if it has ended."""
        return self._recorded(self.scheduler.cancel(request_id, choice))

    def place_of(self, request_id: str) -> RequestPlace | None:
        """Where a request is before its first token; None when it is not in work."""
        self._note_last()
        return self.scheduler.place_of(request_id)

    def fail_all(self, error: VivaceError) -> list[EngineEvent]:
        """End every request with an error, and trust nothing that was computed."""
        events = [
            event for request_id in self.scheduler.request_ids for event in self.scheduler.fail(request_id, error)
        ]
        self.scheduler.forget_prefixes()
        return self._recorded(events)

    def step(self, meanwhile: Callable[[], None] = do_nothing, may_run_ahead: Question = never) -> list[EngineEvent]:
        """Plan, run and commit one step; returns what there is to tell, in order.

        An executor that raises fails the requests of that step; the others go on. Requests that have waited longer than
        they may are failed first.

        Args:
            meanwhile: called once, while the executor computes if there is something to compute. It must not raise, and
                leaves the engine alone.
            may_run_ahead: asked after `meanwhile`: whether the next step may begin by itself as soon as this one's
                tokens are drawn, where it does not depend on them but as its input. Then the engine `is_ahead`
                afterwards.
        """
        expired = self._recorded(self.scheduler.expire())
        return expired + self._step(meanwhile, may_run_ahead)

    def _step(self, meanwhile: Callable[[], None], may_run_ahead: Question) -> list[EngineEvent]:
        plan = self._runner.under_way
        if plan is None:
            self._began_ns = self._clock()
            plan = self.scheduler.schedule()
        if not plan.shares:
            meanwhile()
            return []
        running = self.scheduler.running
        if self._recorder.awaits_start:
            self._recorder.note_started(running[share.sequence_id].request.request_id for share in plan.shares)
        started_ns = self._began_ns if self.is_ahead else self._clock()
        try:
            result = self._runner.run(plan, running, partial(self._meanwhile, plan, meanwhile, may_run_ahead))
        except Exception as error:
            logger.exception("a step of %d rows failed", plan.num_tokens)
            return self._recorded(self._fail_step(plan, error))
        self._num_failures_in_a_row = 0
        began_ns, self._began_ns = self._began_ns, self._clock()
        self._unnoted = (plan, (self._began_ns - started_ns) / 1e6)
        self._recorder.note_step(plan, result)
        events = self._recorded(self.scheduler.commit(plan, result))
        if self._speculator is not None and is_decode(plan):
            self._speculator.note_step(decode_step(plan, len(result.draws), (self._clock() - began_ns) / 1e6))
        return events

    def _meanwhile(self, plan: StepPlan, meanwhile: Callable[[], None], may_run_ahead: Question) -> None:
        """What can be done beside a step: the caller's part, the books of the step before, the plan of the next."""
        meanwhile()
        self._note_last()
        if not self._runner.can_relay or not may_run_ahead():
            return
        following = self.scheduler.plan_ahead(plan)
        if following is None:
            return
        self._runner.prepare(following, self.scheduler.running)
        if not may_run_ahead():  # what came before holds were forgotten
            self._runner.forgo()

    def _note_last(self) -> None:
        """Learn from the last step what steps cost, if that has not been done."""
        if self._unnoted is None:
            return
        self.scheduler.note_step(*self._unnoted)
        self._unnoted = None
        if self._recorder.counters.num_steps % KV_LOOK_STEPS == 0:
            self._recorder.note_kv(*self.scheduler.kv_tokens())

    def preload(self, request: GenerationRequest, contents: Mapping[bytes, BlockContent] = NOTHING) -> int:
        """Bring the prefix of a request that has not come yet to the pool, as far as tiers have it in memory.

        Args:
            request: a valid one.
            contents: blocks that were read ahead, by key.

        Returns:
            Blocks of its prompt that are in the pool now.
        """
        return self.scheduler.blocks.preload(self.scheduler.blocks.keys_of(request), contents)

    def rest(self) -> int:
        """Use a moment without work: bring back who is likely to go on; returns how many blocks came."""
        return self.scheduler.blocks.preload_expected()

    def read_ahead(self, request: GenerationRequest, come: Callable[[dict[bytes, BlockContent]], None]) -> bool:
        """Read what is on disk alone of a request's prefix; False: there is nothing to read. `come`: see DiskTier."""
        blocks = self.scheduler.blocks
        return self.tiers is not None and self.tiers.read_ahead(blocks.names_to_bring(blocks.keys_of(request)), come)

    def keep_on_disk(self, request: GenerationRequest) -> tuple[tuple[bytes, ...], int]:
        """Send the computed prefix of a prompt to the disk and pin it there.

        Returns:
            The names of what is kept, and the number of the prompt's first blocks that are.

        Raises:
            ConfigError: there is no disk tier.
        """
        if self.tiers is None or self.tiers.disk is None:
            raise ConfigError("The engine has no folder for blocks.", "Give it one.")
        return self.scheduler.blocks.keep_on_disk(self.scheduler.blocks.keys_of(request))

    def stats(self) -> EngineStats:
        """The numbers of this moment; may be read from any thread."""
        wait = self.scheduler.gate.last_forecast
        return EngineStats(
            running_sequences=len(self.scheduler.running),
            waiting_sequences=self.scheduler.num_waiting,
            total_blocks=self._pool.num_blocks,
            free_blocks=self._pool.num_free,
            held_blocks=self._pool.num_held,
            cached_blocks=self._pool.num_cached,
            num_local_blocks=self._local.pool.num_blocks if self._local else 0,
            held_local_blocks=self._local.pool.num_held if self._local else 0,
            num_preemptions=self.scheduler.num_preemptions,
            num_refused=self.scheduler.gate.num_refused,
            num_timed_out=self.scheduler.gate.num_timed_out,
            expected_wait_s=None if wait is None else wait.first_token_s,
            completion_error=self.scheduler.estimates.completion.relative_error,
            step_cost_error=self.scheduler.estimates.steps.relative_error,
            mean_qoe=self.scheduler.readers.mean_qoe,
            num_judged=self.scheduler.readers.num_judged,
            num_happy=self.scheduler.readers.num_happy,
            num_stalled=self.scheduler.readers.num_stalled,
            tiers=None if self.tiers is None else self.tiers.stats(),
            speculation=None if self._speculator is None else self._speculator.report(),
            **asdict(self._recorder.counters),
        )

    def close(self) -> None:
        """Free the executor, what left its pool, and the models that guess."""
        self._runner.settle()
        if self.tiers is not None:
            self.tiers.close()
        if self._speculator is not None:
            self._speculator.close()
        self._executor.close()

    def _fail_step(self, plan: StepPlan, error: Exception) -> list[EngineEvent]:
        """Fail the requests of a step that raised.

        Where blocks were to move, all running ones: a move may not have happened, and its owner need not be here.
        """
        self._num_failures_in_a_row += 1
        reason = error if isinstance(error, VivaceError) else EngineError(f"The model failed: {error!r}.")
        running = self.scheduler.running
        ids = running if plan.moves_blocks else [share.sequence_id for share in plan.shares]
        request_ids = dict.fromkeys(running[sequence_id].request.request_id for sequence_id in ids)
        return [event for request_id in request_ids for event in self.scheduler.fail(request_id, reason)]

    def _recorded(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        told = list(events) if self._speculator is None else [self._judged(event, self._speculator) for event in events]
        self._recorder.note_events(told)
        for event in told:
            if not isinstance(event, TokenEvent) and not self.is_live(event.request_id):
                self._recorder.note_ended(event.request_id)
        return told

    @staticmethod
    def _judged(event: EngineEvent, speculator: Speculator) -> EngineEvent:
        """An end with what drafts did for its answer."""
        if isinstance(event, FinishEvent):
            return replace(event, speculation=speculator.end(event.request_id, event.choice, event.num_generated))
        if isinstance(event, FailEvent):
            speculator.abandon(event.request_id)
        return event
