"""The speculator of an engine: follows every stream, asks proposers, and lets a policy choose.

Learns from the tokens that streams turn out to have, never from the verifier: what stood is what was appended.
"""

import math
from collections.abc import Callable, Sequence

from vivace.speculate.acceptance import Acceptance, KindPriors, Watch
from vivace.speculate.calibration import Calibration
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepCosts, StepTimes
from vivace.speculate.drafter import ModelDrafter
from vivace.speculate.guard import HICCUP, Guard
from vivace.speculate.guess import Guess, StepView, Stream
from vivace.speculate.model_desk import ModelDesk
from vivace.speculate.policy import POLICIES, Candidate, could_pay, prompt_cost
from vivace.speculate.proposal import Proposer
from vivace.speculate.proposers import LOOK_UPS
from vivace.speculate.report import SpeculationReport
from vivace.speculate.tally import TurnTally
from vivace.speculate.text_kind import KIND_NAMES, classify
from vivace.telemetry.clock import Clock, now_ns
from vivace.types.draft import DecodeStep, DraftPlace
from vivace.types.speculation import SpeculationUsage

TOKENS_BETWEEN_KINDS = 50
PROMPT_TOKENS_FOR_KIND = 200
IDLE_LOOKS = 8
RESTED_STEPS, MOST_RESTED_STEPS = 3, 11
HOPELESS_RESTED_STEPS = 127  # where even drafts that all stand would not pay

Decode = Callable[[Sequence[int]], str]


class EngineSpeculator:
    """A Speculator (`types.draft`) over the rows of PROPOSERS and POLICIES. Used by one thread; `report` by any.

    Args:
        config: which proposers and policy, and how many drafts.
        decode: token ids to text, to tell kinds of text apart; None: all text counts as one kind.
        drafters: models that guess, one for each such row of the config.
        clock: what drafting takes is measured with, and left out of what steps cost.
    """

    def __init__(
        self,
        config: SpeculationConfig,
        decode: Decode | None = None,
        drafters: Sequence[ModelDrafter] = (),
        clock: Clock = now_ns,
    ) -> None:
        self._config = config
        self._decode = decode
        self._clock = clock
        self._proposers: dict[str, Proposer] = {name: LOOK_UPS[name]() for name in config.proposers if name in LOOK_UPS}
        self._names = (*self._proposers, *(drafter.name for drafter in drafters))
        self._policy = POLICIES[config.policy](config.max_drafts)
        self._costs = StepCosts()
        self._desk = ModelDesk(drafters, self._policy, config.max_drafts, self._costs)
        self._has_models = bool(drafters)
        self._calibration = Calibration()
        self._guard = Guard()
        of_models = {drafter.name: drafter.acceptance for drafter in drafters if drafter.acceptance is not None}
        self._priors = KindPriors(of_models)
        self._streams: dict[int, Stream] = {}
        self._owners: dict[tuple[str, int], int] = {}
        self._total = TurnTally()
        self._kinds = {kind: TurnTally() for kind in KIND_NAMES}
        self._drafting_ms = 0.0
        self._looking_ms = 0.0
        self._num_idle = 0
        self._num_rests = 0
        self._resting_company = 0
        self._start_costs: StepCosts | None = None
        self._refused: dict[int, bool] = {}

    @property
    def max_drafts(self) -> int:
        """Most drafts of one sequence in one step."""
        return self._config.max_drafts

    def report(self) -> SpeculationUsage:
        """All turns so far whose outcome was seen."""
        return self._total.usage()

    def report_by_kind(self) -> SpeculationReport:
        """The same, by kind of text too."""
        return SpeculationReport(self._total.usage(), {kind: tally.usage() for kind, tally in self._kinds.items()})

    def assume_costs(self, times: StepTimes) -> None:
        """Begin with steps that were timed, see `measure_costs`; without them costs are learned slowly."""
        self._costs.assume(times)
        if not times.ms:
            return
        self._start_costs = StepCosts()
        self._start_costs.assume(times)
        self._start_costs.look_at(times.context)
        self._refused.clear()

    def rests(self, num_streams: int) -> bool:
        """Whether this step may go by unasked: after IDLE_LOOKS without drafts only every fourth step is looked at,
        and in large company every twelfth, as looking takes the longer. A rest ends when the company gets smaller.

        Following streams and guessing for nothing would cost a plain step a few percent of its time. None is looked at
        while drafts have not paid of late in such company, none at all where by the steps timed before serving none can
        pay, and one in 128 where they cannot by those of now.
        """
        self._drafting_ms = self._looking_ms = 0.0
        if self.refuses(num_streams):
            return True
        if self._policy.weighs_costs and self._guard.takes_pause(num_streams):
            return True
        if self._num_rests == 0 or num_streams < self._resting_company:
            return False
        self._num_rests -= 1
        return True

    def propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> list[tuple[int, ...]]:
        """Drafts for each place; see `types.draft.Speculator`."""
        self._drafting_ms = 0.0
        if not places:
            return []
        began_ns = self._clock()
        drafts = self._propose(places, num_rows, budget)
        self._looking_ms = (self._clock() - began_ns) / 1e6
        return drafts

    def _propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> list[tuple[int, ...]]:
        self._costs.look_at(sum(len(place.tokens) for place in places) / len(places))
        streams = [self._follow(place) for place in places]
        guesses = [self._guess(stream, place) for stream, place in zip(streams, places, strict=True)]
        candidates = [
            Candidate(guess.cumulative, stream.window.length) for guess, stream in zip(guesses, streams, strict=True)
        ]
        most = self._guard.credit(len(places)) * self._costs.of(len(places)) if self._policy.weighs_costs else math.inf
        choice = self._policy.choose(candidates, num_rows, budget, self._costs, most=most)
        if self._has_models:
            view = StepView(streams, places, guesses, num_rows, budget, most)
            plan = self._desk.plan(view, choice)
            if plan is not None:
                began_ns = self._clock()
                choice, guesses = plan.choice, self._desk.run(plan, view)
                self._drafting_ms = (self._clock() - began_ns) / 1e6
        self._num_idle = 0 if any(choice.counts) else self._num_idle + 1
        self._num_rests, self._resting_company = self._rest_after(len(places)), len(places)
        return self._take(streams, guesses, choice.counts, num_rows)

    def _rest_after(self, num_streams: int) -> int:
        """Steps to go by unasked after a look."""
        if not self._policy.weighs_costs or self._num_idle == 0:
            return 0
        most = self._config.max_drafts
        if not (self._has_models or could_pay(num_streams, most, self._costs)):
            return HOPELESS_RESTED_STEPS
        return min(MOST_RESTED_STEPS, RESTED_STEPS + num_streams // 2) if self._num_idle >= IDLE_LOOKS else 0

    def refuses(self, num_streams: int) -> bool:
        """Whether drafts are not taken in such company, whatever is learned while serving.

        Steps before serving were timed in turns, so that a load falls on all of them; what is learned while others come
        and go on the machine can err by more, and then drafts seem to pay where they never do.
        """
        if not self._policy.weighs_costs or self._has_models or self._start_costs is None:
            return False
        if num_streams not in self._refused:
            pays = could_pay(num_streams, self._config.max_drafts, self._start_costs)
            self._refused[num_streams] = not pays
        return self._refused[num_streams]

    def note_step(self, step: DecodeStep) -> None:
        """A step of streams and drafts alone has ended; what guessing took does not count as cost of its rows."""
        self._costs.look_at(step.num_pairs / step.num_rows)
        plain_ms = self._costs.milliseconds(step.num_streams)
        if step.num_rows > step.num_streams:
            likely_ms = self._costs.milliseconds(step.num_rows) + self._looking_ms
            spent_ms = min(step.elapsed_ms, HICCUP * likely_ms) if plain_ms else step.elapsed_ms
            self._guard.note(step.num_streams, step.num_tokens, spent_ms, plain_ms or step.elapsed_ms)
        elif plain_ms:
            self._guard.note_plain(step.num_streams, self._looking_ms, plain_ms)
        self._costs.note(step.num_rows, step.elapsed_ms - self._looking_ms)

    def end(self, request_id: str, choice: int, num_generated: int) -> SpeculationUsage | None:
        """An answer has ended; see `types.draft.Speculator`."""
        sequence_id = self._owners.pop((request_id, choice), None)
        stream = None if sequence_id is None else self._streams.pop(sequence_id, None)
        if stream is None or sequence_id is None:
            return None
        self._note_turn(stream, num_generated - (len(stream.tokens) - stream.num_prompt))
        for follower in stream.followers.values():
            follower.finish(stream.tokens[stream.num_prompt :])
        self._desk.forget(sequence_id)
        return stream.tally.usage()

    def abandon(self, request_id: str) -> None:
        """A request has failed; see `types.draft.Speculator`."""
        for owner in [owner for owner in self._owners if owner[0] == request_id]:
            sequence_id = self._owners.pop(owner)
            self._streams.pop(sequence_id, None)
            self._desk.forget(sequence_id)

    def close(self) -> None:
        """Free what models of its own hold."""
        self._desk.close()

    def _take(
        self, streams: Sequence[Stream], guesses: Sequence[Guess], counts: Sequence[int], num_rows: int
    ) -> list[tuple[int, ...]]:
        """The drafts of the step, and what each stream is to be judged by afterwards."""
        drafts = [guess.tokens[:count] for guess, count in zip(guesses, counts, strict=True)]
        num_streams = len(streams)
        plain, spent_anyway = self._costs.of(num_streams), prompt_cost(num_streams, num_rows, self._costs)
        relative = (self._costs.of(num_rows + sum(map(len, drafts))) - spent_anyway) / plain
        if self._drafting_ms:
            relative += self._drafting_ms / (self._costs.milliseconds(num_streams) or self._drafting_ms)
        is_beside_prompt = num_rows > num_streams  # nobody times such a step: what it costs is paid in advance
        if is_beside_prompt and any(drafts):
            self._guard.pay(num_streams, relative - 1)
        for stream, guess, mine in zip(streams, guesses, drafts, strict=True):
            stream.num_drafts, stream.turn_cost, stream.is_beside_prompt = len(mine), relative, is_beside_prompt
            stream.company = num_streams
            stream.expected = sum(guess.cumulative[: len(mine)])
        return drafts

    def _follow(self, place: DraftPlace) -> Stream:
        """The stream of a place, told what it has said since."""
        stream = self._streams.get(place.sequence_id)
        if stream is None:
            stream = self._streams[place.sequence_id] = self._begin(place)
            self._owners[place.owner] = place.sequence_id
        new = place.tokens[len(stream.tokens) :].tolist()
        is_first = not stream.tokens
        stream.tokens += new
        for follower in stream.followers.values():
            follower.extend(new)
        if not is_first:
            for watch in stream.watches.values():
                watch.see(new, stream.kind, stream.acceptance)
            self._note_turn(stream, len(new))
        stream.num_until_kind -= len(new)
        if is_first or stream.num_until_kind <= 0:
            prompt = stream.tokens[: stream.num_prompt][-PROMPT_TOKENS_FOR_KIND:]
            self._tell_kind(stream, prompt if is_first else stream.tokens[-TOKENS_BETWEEN_KINDS:])
        return stream

    def _begin(self, place: DraftPlace) -> Stream:
        return Stream(
            followers={name: proposer.follow(place.tenant) for name, proposer in self._proposers.items()},
            watches={name: Watch(name) for name in self._names},
            acceptance=Acceptance(self._priors),
            num_prompt=place.num_prompt,
        )

    def _note_turn(self, stream: Stream, num_new: int) -> None:
        """The last turn of a stream has brought so many tokens."""
        if stream.num_drafts is None or num_new < 1:
            return
        num_drafts, stream.num_drafts = stream.num_drafts, None
        tallies = (stream.tally, self._kinds[stream.kind], self._total)
        if num_drafts == 0:  # and so it was in the steps that went by unasked
            for tally in tallies:
                tally.note_plain(num_new, stream.turn_cost)
            return
        if stream.is_beside_prompt:
            self._guard.pay(stream.company, -min(num_new - 1, num_drafts) / stream.company)
        stream.window.note(num_drafts, num_new - 1)
        self._calibration.note(stream.expected, min(num_new - 1, num_drafts))
        for tally in tallies:
            tally.note(num_drafts, num_new, stream.turn_cost)

    def _tell_kind(self, stream: Stream, tokens: Sequence[int]) -> None:
        stream.num_until_kind = TOKENS_BETWEEN_KINDS
        if self._decode is not None:
            stream.kind = classify(self._decode(tokens), stream.kind)

    def _guess(self, stream: Stream, place: DraftPlace) -> Guess:
        """The most promising look-up and the probabilities of its positions, cut to the room and to the grammar."""
        best, best_sum = Guess(), 0.0
        for name, follower in stream.followers.items():
            proposal = follower.propose(self._config.max_drafts)
            stream.watches[name].begin(proposal)
            if proposal is None:
                continue
            count = min(place.max_drafts, len(proposal.tokens))
            cumulative = stream.acceptance.cumulative(stream.kind, name, proposal.evidence, count)
            promised = sum(cumulative)
            if promised > best_sum:
                best, best_sum = Guess(proposal.tokens[:count], self._calibration.apply(cumulative)), promised
        if best.tokens and place.grammar is not None:
            count = place.grammar.num_valid(place.tokens[place.num_prompt :], best.tokens)
            return Guess(best.tokens[:count], best.cumulative[:count])
        return best
