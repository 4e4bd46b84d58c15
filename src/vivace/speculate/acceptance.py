"""How likely a draft stands, by what speaks for it and by its position: learned per request, and per kind of text.

A guess is watched against the tokens that really come, whether it was verified or not. So acceptance stays known while
drafts are switched off, and switching them on again costs no trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vivace.speculate.proposal import Proposal
from vivace.speculate.text_kind import KINDS, TextKind

NUM_POSITIONS = 8  # positions 0 to 6 and all later ones have figures of their own
PRIOR_BY_EVIDENCE = (0.2, 0.35, 0.5, 0.65, 0.8)  # before anything was seen; the kind of text scales it
MODEL_PRIOR = sum(row.acceptance for row in KINDS) / len(KINDS)  # scaled, that is the chapter's figure for the kind
LATER_POSITIONS = 0.1  # a draft after one that stood stands the more likely
REQUEST_MEMORY = 0.85  # what an old observation counts after a new one: about the last 7 decide
SERVER_MEMORY = 0.998
REQUEST_PRIOR_WEIGHT = 2.0  # observations that the prior is worth
SERVER_PRIOR_WEIGHT = 6.0
UNLIKELY = 0.02  # drafts that stand so seldom pay nowhere: how seldom exactly is no matter
MIN_PROBABILITY, MAX_PROBABILITY = 0.01, 0.99

Cell = tuple[str, int, int]  # proposer, evidence, position


@dataclass(slots=True)
class _Count:
    stood: float = 0.0
    tried: float = 0.0

    def note(self, stands: bool, memory: float) -> None:
        self.stood = self.stood * memory + stands
        self.tried = self.tried * memory + 1

    def estimate(self, prior: float, weight: float) -> float:
        return (self.stood + weight * prior) / (self.tried + weight)


class KindPriors:
    """What this server has seen, by kind of text: the prior of a request that has shown nothing yet.

    Args:
        of_models: acceptance of models that guess, by name, as far as it was measured before.
    """

    def __init__(self, of_models: Mapping[str, float] | None = None) -> None:
        self._of_models = of_models or {}
        self._counts: dict[tuple[TextKind, Cell], _Count] = {}
        self._scales = {row.kind: row.acceptance / MODEL_PRIOR for row in KINDS}

    def note(self, kind: TextKind, cell: Cell, stands: bool) -> None:
        """One draft was seen to stand or fall."""
        self._counts.setdefault((kind, cell), _Count()).note(stands, SERVER_MEMORY)

    def estimate(self, kind: TextKind, cell: Cell) -> float:
        """Probability that a draft stands once all before it stand."""
        name, evidence, position = cell
        by_model = self._of_models.get(name, MODEL_PRIOR)
        prior = (*PRIOR_BY_EVIDENCE, by_model)[evidence] * self._scales[kind]
        prior = min(MAX_PROBABILITY, prior + LATER_POSITIONS * (position > 0))
        count = self._counts.get((kind, cell))
        return prior if count is None else count.estimate(prior, SERVER_PRIOR_WEIGHT)


class Acceptance:
    """The figures of one request.

    Args:
        priors: of the server; told of everything that is seen here.
    """

    def __init__(self, priors: KindPriors) -> None:
        self._priors = priors
        self._counts: dict[Cell, _Count] = {}
        self._vectors: dict[tuple[TextKind, str, int], tuple[float, ...]] = {}

    def note(self, kind: TextKind, cell: Cell, stands: bool) -> None:
        """One draft was seen to stand or fall."""
        self._counts.setdefault(cell, _Count()).note(stands, REQUEST_MEMORY)
        self._priors.note(kind, cell, stands)
        self._vectors.pop((kind, *cell[:2]), None)

    def cumulative(self, kind: TextKind, proposer: str, evidence: int, count: int) -> tuple[float, ...]:
        """Probability that the drafts up to each position all stand; kept until this request shows something new."""
        key = (kind, proposer, evidence)
        vector = self._vectors.get(key)
        if vector is None or len(vector) < count:
            vector = self._vectors[key] = self._work_out(kind, proposer, evidence, max(count, 8))
        return vector[:count]

    def _work_out(self, kind: TextKind, proposer: str, evidence: int, count: int) -> tuple[float, ...]:
        probabilities = []
        product = estimate = 1.0
        for index in range(count):
            if index >= NUM_POSITIONS or product < UNLIKELY:
                product *= estimate
                probabilities.append(product)
                continue
            cell = (proposer, evidence, index)
            prior = self._priors.estimate(kind, cell)
            seen = self._counts.get(cell)
            estimate = prior if seen is None else seen.estimate(prior, REQUEST_PRIOR_WEIGHT)
            estimate = min(MAX_PROBABILITY, max(MIN_PROBABILITY, estimate))
            product *= estimate
            probabilities.append(product)
        return tuple(probabilities)


@dataclass(slots=True)
class Watch:
    """A guess of one proposer that is compared with what comes; one at a time."""

    proposer: str
    proposal: Proposal | None = None
    index: int = field(default=0)

    def begin(self, proposal: Proposal | None) -> None:
        """Watch this guess unless another is still being watched."""
        if self.proposal is None:
            self.proposal, self.index = proposal, 0

    def see(self, tokens: Sequence[int], kind: TextKind, acceptance: Acceptance) -> None:
        """The sequence went on with these tokens."""
        for token in tokens:
            proposal = self.proposal
            if proposal is None:
                return
            stands = proposal.tokens[self.index] == token
            acceptance.note(kind, (self.proposer, proposal.evidence, min(self.index, NUM_POSITIONS - 1)), stands)
            self.index += 1
            if not stands or self.index == len(proposal.tokens):
                self.proposal = None
