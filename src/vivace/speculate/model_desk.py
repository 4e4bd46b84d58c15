"""Whether a model should guess in a step, for whom and how far; and what it costs to find out.

Look-up is free, a model's passes are not: so its guesses are weighed before they are made, by what its earlier ones
were worth. While it is left out, its acceptance is unknown after a time; a probe is then allowed, as soon as the plain
steps since the last one have saved up for it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vivace.speculate.costs import StepCosts
from vivace.speculate.drafter import ModelDrafter
from vivace.speculate.guess import Guess, StepView
from vivace.speculate.policy import MARGIN, Candidate, Choice, Policy
from vivace.speculate.proposal import MODEL_EVIDENCE, Proposal

logger = logging.getLogger(__name__)

HORIZON_TOKENS = 64  # over which the cost of catching up with a prompt is spread when it is weighed
PROBE_SHARE = 1 / 128  # of the time of plain steps that probes may take
PROBE_EVERY = 64  # steps between two probes, at least


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A way to spend the next step: `drafter` guesses for the streams marked in `by_model`, look-up for the others."""

    drafter: ModelDrafter
    choice: Choice
    by_model: tuple[bool, ...]


class ModelDesk:
    """Weighs and runs model drafters.

    Args:
        drafters: in order of preference.
        policy: that chooses draft lengths.
        max_drafts: most drafts of one sequence.
        costs: of the target's steps.
    """

    def __init__(self, drafters: Sequence[ModelDrafter], policy: Policy, max_drafts: int, costs: StepCosts) -> None:
        self._all = tuple(drafters)
        self._drafters = list(drafters)
        self._policy = policy
        self._max_drafts = max_drafts
        self._costs = costs
        self._credit = dict.fromkeys((drafter.name for drafter in drafters), 0.0)
        self._since = dict.fromkeys((drafter.name for drafter in drafters), 0)

    def plan(self, view: StepView, look_up: Choice) -> ModelPlan | None:
        """The plan that promises more than look-up alone, if there is one."""
        best: ModelPlan | None = None
        weighs = self._policy.weighs_costs
        for drafter in self._drafters:
            options = self._options(drafter, view)
            bar = max(look_up.rate * MARGIN, 0.0 if best is None else best.choice.rate) if weighs else -1.0
            chosen = max(options, key=lambda option: option.choice.rate, default=None)
            if chosen is not None and chosen.choice.rate > bar and (best is None or weighs):
                best = chosen
        for drafter in self._drafters:
            self._save_up(drafter.name, view.num_rows, is_used=best is not None and best.drafter is drafter)
        if best is None and weighs:
            best = self._probe(view, look_up)
        return best

    def run(self, plan: ModelPlan, view: StepView) -> list[Guess]:
        """Let the plan's drafter guess; a drafter that fails is not asked again."""
        counts = [count * is_model for count, is_model in zip(plan.choice.counts, plan.by_model, strict=True)]
        name = plan.drafter.name
        try:
            found = plan.drafter.draft(view.places, counts)
        except Exception:
            logger.exception("the proposer %s failed and is left out from now on", name)
            self._drafters.remove(plan.drafter)
            return [Guess() if by_model else guess for guess, by_model in zip(view.guesses, plan.by_model, strict=True)]
        told = []
        for stream, guess, tokens, by_model in zip(view.streams, view.guesses, found, plan.by_model, strict=True):
            if tokens:
                stream.watches[name].begin(Proposal(tokens, MODEL_EVIDENCE))
            vector = stream.acceptance.cumulative(stream.kind, name, MODEL_EVIDENCE, len(tokens)) if by_model else ()
            told.append(Guess(tokens, vector) if by_model else guess)
        return told

    def forget(self, sequence_id: int) -> None:
        """A sequence has ended."""
        for drafter in self._drafters:
            drafter.forget(sequence_id)

    def close(self) -> None:
        """Free the drafters."""
        for drafter in self._all:
            drafter.close()

    def _options(self, drafter: ModelDrafter, view: StepView) -> list[ModelPlan]:
        """Plans with passes of growing depth, until they promise less."""
        vectors = [
            stream.acceptance.cumulative(
                stream.kind, drafter.name, MODEL_EVIDENCE, min(place.max_drafts, self._max_drafts)
            )
            for stream, place in zip(view.streams, view.places, strict=True)
        ]
        pending = [drafter.num_pending(place) for place in view.places]
        weighs = self._policy.weighs_costs
        options: list[ModelPlan] = []
        for depth in range(1 if weighs else self._max_drafts, self._max_drafts + 1):
            by_model = tuple(
                sum(vector[:depth]) > sum(guess.cumulative) for vector, guess in zip(vectors, view.guesses, strict=True)
            )
            if not any(by_model):
                continue
            candidates = [
                Candidate(vector[:depth] if is_model else guess.cumulative, stream.window.length)
                for vector, is_model, guess, stream in zip(vectors, by_model, view.guesses, view.streams, strict=True)
            ]
            num_late = sum(count - 1 for count, is_model in zip(pending, by_model, strict=True) if is_model)
            extra = self._cost(drafter, sum(by_model), depth, num_late)
            choice = self._policy.choose(
                candidates, view.num_rows, view.budget, self._costs, extra=extra, most=view.most
            )
            options.append(ModelPlan(drafter, choice, by_model))
            if weighs and len(options) > 1 and choice.rate < options[-2].choice.rate:
                break
        return [option for option in options if any(option.choice.counts)]

    def _cost(self, drafter: ModelDrafter, num_streams: int, depth: int, num_late: int) -> float:
        """Of drafting, in the unit of step costs; few late rows are part of every turn, many are spread."""
        height = self._costs.milliseconds(1) / self._costs.of(1)
        if height <= 0:
            return 0.0
        first = drafter.milliseconds(num_streams + min(num_late, num_streams))
        spread = max(0, num_late - num_streams) * drafter.milliseconds(32) / 32 / HORIZON_TOKENS
        return (first + (depth - 1) * drafter.milliseconds(num_streams) + spread) / height

    def _save_up(self, name: str, num_rows: int, *, is_used: bool) -> None:
        self._since[name] = 0 if is_used else self._since[name] + 1
        self._credit[name] = 0.0 if is_used else self._credit[name] + PROBE_SHARE * self._costs.of(num_rows)

    def _probe(self, view: StepView, look_up: Choice) -> ModelPlan | None:
        """One draft for one stream, by a drafter whose turn it is and that has saved up for it."""
        for drafter in self._drafters:
            if self._since[drafter.name] < PROBE_EVERY:
                continue
            late = [(drafter.num_pending(place), index) for index, place in enumerate(view.places) if place.max_drafts]
            if not late:
                continue
            num_pending, index = min(late)
            height = self._costs.milliseconds(1) / self._costs.of(1) or 1.0
            cost = (
                drafter.milliseconds(num_pending) / height
                + self._costs.of(view.num_rows + 1)
                - self._costs.of(view.num_rows)
            )
            if cost > min(self._credit[drafter.name], view.most):
                continue
            self._since[drafter.name], self._credit[drafter.name] = 0, 0.0
            marks = tuple(place == index for place in range(len(view.places)))
            counts = [1 if mark else count for mark, count in zip(marks, look_up.counts, strict=True)]
            return ModelPlan(drafter, Choice(counts), marks)
        return None
