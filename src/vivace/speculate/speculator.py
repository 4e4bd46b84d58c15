"""The speculator of an engine: follows every stream, asks proposers, and lets a policy choose.

Learns from the tokens that streams turn out to have, never from the verifier: what stood is what was appended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vivace.speculate.acceptance import Acceptance, KindPriors, Watch
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepCosts
from vivace.speculate.policy import POLICIES, Candidate, WindowLength
from vivace.speculate.proposal import Follower, Proposal, Proposer
from vivace.speculate.proposers import PROPOSERS
from vivace.speculate.report import KindReport, SpeculationReport
from vivace.speculate.text_kind import DEFAULT_KIND, KIND_NAMES, TextKind, classify
from vivace.types.draft import DraftPlace

TOKENS_BETWEEN_KINDS = 50
PROMPT_TOKENS_FOR_KIND = 200

Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True)
class _Stream:
    """One followed sequence. `num_drafts` and `turn_cost` are of its last turn; None before the first."""

    followers: dict[str, Follower]
    watches: dict[str, Watch]
    acceptance: Acceptance
    num_prompt: int
    kind: TextKind = DEFAULT_KIND
    num_until_kind: int = 0
    tokens: list[int] = field(default_factory=list)
    window: WindowLength = field(default_factory=WindowLength)
    num_drafts: int | None = None
    turn_cost: float = 1.0


class EngineSpeculator:
    """A Speculator (`types.draft`) over the rows of PROPOSERS and POLICIES. Used by one thread.

    Args:
        config: which proposers and policy, and how many drafts.
        decode: token ids to text, to tell kinds of text apart; None: all text counts as one kind.
    """

    def __init__(self, config: SpeculationConfig, decode: Decode | None = None) -> None:
        self._config = config
        self._decode = decode
        self._proposers: dict[str, Proposer] = {name: PROPOSERS[name]() for name in config.proposers}
        self._policy = POLICIES[config.policy](config.max_drafts)
        self._costs = StepCosts()
        self._priors = KindPriors()
        self._streams: dict[int, _Stream] = {}
        self._kinds = {kind: KindReport() for kind in KIND_NAMES}

    @property
    def max_drafts(self) -> int:
        """Most drafts of one sequence in one step."""
        return self._config.max_drafts

    def report(self) -> SpeculationReport:
        """Figures so far; outcomes of turns after which a stream ended are not in them."""
        return SpeculationReport(self._kinds)

    def assume_costs(self, costs_ms: Mapping[int, float]) -> None:
        """Begin with milliseconds of steps by rows, see `measure_costs`; without them costs are learned slowly."""
        self._costs.assume(costs_ms)

    def propose(self, places: Sequence[DraftPlace], num_rows: int, budget: int) -> list[tuple[int, ...]]:
        """Drafts for each place; see `types.draft.Speculator`."""
        self._forget_ended({place.sequence_id for place in places})
        guesses = []
        candidates = []
        for place in places:
            stream = self._follow(place)
            tokens, cumulative = self._guess(stream, place.max_drafts)
            guesses.append(tokens)
            candidates.append(Candidate(cumulative, stream.window.length))
        counts = self._policy.choose(candidates, num_rows, budget, self._costs)
        relative = self._costs.of(num_rows + sum(counts)) / self._costs.of(num_rows)
        for place, count in zip(places, counts, strict=True):
            stream = self._streams[place.sequence_id]
            stream.num_drafts, stream.turn_cost = count, relative
        return [guess[:count] for guess, count in zip(guesses, counts, strict=True)]

    def note_step(self, num_rows: int, elapsed_ms: float) -> None:
        """A step of streams and drafts alone had so many rows and took so long."""
        self._costs.note(num_rows, elapsed_ms)

    def _forget_ended(self, live: set[int]) -> None:
        if len(self._streams) == len(live) and self._streams.keys() == live:
            return
        for sequence_id in self._streams.keys() - live:
            stream = self._streams.pop(sequence_id)
            for follower in stream.followers.values():
                follower.finish(stream.tokens[stream.num_prompt :])

    def _follow(self, place: DraftPlace) -> _Stream:
        """The stream of a place, told what it has said since."""
        stream = self._streams.get(place.sequence_id)
        if stream is None:
            stream = self._streams[place.sequence_id] = self._begin(place)
        new = place.tokens[len(stream.tokens) :].tolist()
        is_first = not stream.tokens
        stream.tokens += new
        for follower in stream.followers.values():
            follower.extend(new)
        if not is_first:
            self._learn(stream, new)
        stream.num_until_kind -= len(new)
        if is_first or stream.num_until_kind <= 0:
            self._tell_kind(stream, PROMPT_TOKENS_FOR_KIND if is_first else TOKENS_BETWEEN_KINDS)
        return stream

    def _begin(self, place: DraftPlace) -> _Stream:
        return _Stream(
            followers={name: proposer.follow(place.tenant) for name, proposer in self._proposers.items()},
            watches={name: Watch(name) for name in self._proposers},
            acceptance=Acceptance(self._priors),
            num_prompt=place.num_prompt,
        )

    def _learn(self, stream: _Stream, new: Sequence[int]) -> None:
        for watch in stream.watches.values():
            watch.see(new, stream.kind, stream.acceptance)
        if stream.num_drafts is not None and new:
            stream.window.note(stream.num_drafts, len(new) - 1)
            self._kinds[stream.kind].note(stream.num_drafts, len(new), stream.turn_cost)
            stream.num_drafts = None

    def _tell_kind(self, stream: _Stream, num_tokens: int) -> None:
        stream.num_until_kind = TOKENS_BETWEEN_KINDS
        if self._decode is not None:
            stream.kind = classify(self._decode(stream.tokens[-num_tokens:]))

    def _guess(self, stream: _Stream, room: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The most promising guess and the probabilities of its positions, cut to the room."""
        best: tuple[tuple[int, ...], tuple[float, ...]] = ((), ())
        for name, follower in stream.followers.items():
            proposal: Proposal | None = follower.propose(self._config.max_drafts)
            stream.watches[name].begin(proposal)
            if proposal is None:
                continue
            cumulative = stream.acceptance.cumulative(stream.kind, name, proposal)[:room]
            if sum(cumulative) > sum(best[1]):
                best = proposal.tokens[:room], cumulative
        return best
