"""Counts and times at the engine's walls: fed with plans and events, read as numbers. Never changes what happens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vivace.telemetry.clock import Clock
from vivace.telemetry.timeline import StageTimeline
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, TokenEvent
from vivace.types.step import StepPlan, StepResult


@dataclass(slots=True)
class EngineCounters:
    """Totals since the engine began; see EngineStats for their meaning."""

    num_requests: int = 0
    num_finished_choices: int = 0
    num_failed_requests: int = 0
    num_steps: int = 0
    num_computed_tokens: int = 0
    num_generated_tokens: int = 0
    num_cached_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    num_prompt_tokens: int = 0
    kv_held_tokens: int = 0
    kv_reserved_tokens: int = 0


class EngineRecorder:
    """Keeps the counters and moves the timeline of each request through queued, prefill and decode.

    Args:
        clock: for the timelines.
    """

    def __init__(self, clock: Clock) -> None:
        self.counters = EngineCounters()
        self._clock = clock
        self._timelines: dict[str, StageTimeline] = {}
        self._unstarted: set[str] = set()

    @property
    def awaits_start(self) -> bool:
        """Whether some request has not been in a step yet."""
        return bool(self._unstarted)

    def note_request(self, request_id: str, timeline: StageTimeline | None) -> None:
        """A request was taken; its timeline, if any, is in its first stage."""
        self.counters.num_requests += 1
        if timeline is not None:
            self._timelines[request_id] = timeline
            self._unstarted.add(request_id)

    def note_started(self, request_ids: Iterable[str]) -> None:
        """These requests are in the step that begins."""
        now = self._clock()
        for request_id in self._unstarted.intersection(request_ids):
            self._unstarted.remove(request_id)
            self._timelines[request_id].enter("prefill", now)

    def note_step(self, plan: StepPlan, result: StepResult) -> None:
        """A step has succeeded."""
        counters = self.counters
        counters.num_steps += 1
        counters.num_computed_tokens += plan.num_tokens
        num_drafted = sum(len(share.drafts) for share in plan.shares)
        if num_drafted:
            counters.num_drafted_tokens += num_drafted
            counters.num_accepted_tokens += len(result.draws) - sum(share.wants_logits for share in plan.shares)

    def note_kv(self, num_held: int, num_reserved: int) -> None:
        """So many known tokens lie in so many slots."""
        self.counters.kv_held_tokens += num_held
        self.counters.kv_reserved_tokens += num_reserved

    def note_events(self, events: Sequence[EngineEvent]) -> None:
        """These events are about to be told."""
        counters = self.counters
        for event in events:
            if isinstance(event, TokenEvent):
                counters.num_generated_tokens += 1
                if event.index == 0 and event.choice == 0 and event.request_id in self._timelines:
                    self._timelines[event.request_id].enter("decode", self._clock())
            elif isinstance(event, FinishEvent):
                counters.num_finished_choices += 1
                if event.choice == 0:
                    counters.num_cached_tokens += event.num_cached_tokens
                    counters.num_prompt_tokens += event.num_prompt_tokens
            elif isinstance(event, FailEvent):
                counters.num_failed_requests += 1

    def note_ended(self, request_id: str) -> None:
        """No event of this request will follow."""
        self._unstarted.discard(request_id)
        timeline = self._timelines.pop(request_id, None)
        if timeline is not None:
            timeline.end(self._clock())
