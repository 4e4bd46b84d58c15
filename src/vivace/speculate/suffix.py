"""Look-up in past answers: what this server said the last time an answer ran like this.

Frequent questions get similar answers. Each tenant's answers stay with that tenant: not even the speed of an answer
tells what another tenant was told. After SuffixDecoding (Oliaro et al., 2024), with an automaton in place of a tree.
"""

from collections import OrderedDict
from collections.abc import Sequence

from vivace.speculate.proposal import Proposal, evidence_of
from vivace.speculate.suffix_automaton import SuffixAutomaton

DEFAULT_MAX_TOKENS = 65_536  # of one tenant; Python needs about 0.6 kB for each
DEFAULT_MAX_TENANTS = 16
LEAST_MATCH = 2  # tokens; one that other answers have in common says nothing
REMATCHED_TOKENS = 32  # tokens that a follower looks up again when the store has moved on


class AnswerStore:
    """Past answers of one tenant in two generations: when the young one is full it becomes the old one, and the old
    one is forgotten. So at least the last max_tokens / 2 tokens are known and never more than max_tokens.

    Args:
        max_tokens: most tokens kept, separators included.
    """

    def __init__(self, max_tokens: int = DEFAULT_MAX_TOKENS) -> None:
        self._half = max(1, max_tokens // 2)
        self.generations = (SuffixAutomaton(), SuffixAutomaton())  # young, old

    @property
    def num_tokens(self) -> int:
        """Tokens kept."""
        return sum(len(generation.text) for generation in self.generations)

    def add(self, answer: Sequence[int]) -> None:
        """Remember an answer; the end of it where it is too long."""
        kept = answer[-(self._half - 1) :] if self._half > 1 else ()
        if not kept:
            return
        young, _ = self.generations
        if len(young.text) + len(kept) + 1 > self._half:
            self.generations = (SuffixAutomaton(), young)
        self.generations[0].add(kept)


class SuffixFollower:
    """The longest match of one sequence's end in each generation of a store."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._recent: list[int] = []
        self._generations = store.generations
        self._matches = [(0, 0), (0, 0)]

    def extend(self, tokens: Sequence[int]) -> None:
        """Follow more tokens."""
        self._recent = [*self._recent, *tokens][-REMATCHED_TOKENS:]
        if self._generations is not self._store.generations:
            self._generations = self._store.generations
            tokens = self._recent
        if len(tokens) >= len(self._recent):
            self._matches = [(0, 0), (0, 0)]
        for index, automaton in enumerate(self._generations):
            state, matched = self._matches[index]
            for token in tokens[-REMATCHED_TOKENS:]:
                state, matched = automaton.step(state, matched, token)
            self._matches[index] = state, matched

    def propose(self, count: int) -> Proposal | None:
        """What followed the longest match; of the younger answers where both are as long."""
        if self._generations is not self._store.generations:
            self.extend(())
        best: tuple[int, tuple[int, ...]] = (LEAST_MATCH - 1, ())
        for automaton, (state, matched) in zip(self._generations, self._matches, strict=True):
            if matched > best[0] and (found := automaton.continuation(state, count)):
                best = matched, found
        matched, found = best
        return Proposal(found, evidence_of(matched)) if found else None

    def finish(self, answer: Sequence[int]) -> None:
        """Remember the answer for the tenant's next ones."""
        self._store.add(answer)


class SuffixProposer:
    """One store a tenant; the tenant that was quiet longest is forgotten first.

    Args:
        max_tokens: of each store.
        max_tenants: stores kept.
    """

    def __init__(self, max_tokens: int = DEFAULT_MAX_TOKENS, max_tenants: int = DEFAULT_MAX_TENANTS) -> None:
        self._max_tokens = max_tokens
        self._max_tenants = max_tenants
        self._stores: OrderedDict[str, AnswerStore] = OrderedDict()

    def follow(self, tenant: str) -> SuffixFollower:
        """Begin with a new sequence of a tenant."""
        store = self._stores.setdefault(tenant, AnswerStore(self._max_tokens))
        self._stores.move_to_end(tenant)
        while len(self._stores) > self._max_tenants:
            self._stores.popitem(last=False)
        return SuffixFollower(store)
