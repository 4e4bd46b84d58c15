"""Look-up in the sequence itself: what followed the last time these tokens stood here.

Copies, quotations, code and lists repeat themselves; the longest earlier match tells how they go on. Prompt look-up
decoding (Saxena, 2023) with an index that grows by one entry a token.
"""

from collections.abc import Sequence

from vivace.speculate.proposal import Proposal, evidence_of

MAX_CANDIDATES = 6  # earlier places that are tried for the longest match, newest first
MAX_MATCH = 16  # a longer match says no more


class NgramFollower:
    """The index of one sequence: for each pair of tokens where it stood last, and for each place the one before it.

    A token costs one look-up; a proposal at most MAX_CANDIDATES x MAX_MATCH comparisons.
    """

    __slots__ = ("_last", "_newest", "_previous", "_tokens")

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._last: dict[tuple[int, int], int] = {}  # pair -> index after its newest occurrence
        self._newest: dict[int, int] = {}  # token -> index after its newest occurrence but that at the end
        self._previous: list[int] = []  # index after a pair -> index after the same pair before, 0 for none

    def extend(self, tokens: Sequence[int]) -> None:
        """Index more tokens."""
        known, last, previous, newest = self._tokens, self._last, self._previous, self._newest
        for token in tokens:
            if known:
                newest[known[-1]] = len(known)
            known.append(token)
            end = len(known)
            if end == 1:
                previous += (0, 0)
                continue
            pair = (known[-2], token)
            previous.append(last.get(pair, 0))
            last[pair] = end

    def propose(self, count: int) -> Proposal | None:
        """What followed the longest earlier match of the last tokens; the newest among equally long ones."""
        tokens = self._tokens
        if count < 1 or len(tokens) <= 2:
            return None
        best_end, best_length = 0, 0
        end = self._previous[-1]
        for _ in range(MAX_CANDIDATES):
            if end == 0:
                break
            length = self._match_length(end)
            if length > best_length:
                best_end, best_length = end, length
            if length == MAX_MATCH:
                break
            end = self._previous[end]
        if best_end == 0:
            best_end, best_length = self._newest.get(tokens[-1], 0), 1
            if best_end == 0:
                return None
        return Proposal(self._continuation(best_end, count), evidence_of(best_length))

    def finish(self, answer: Sequence[int]) -> None:
        """Nothing is kept."""

    def _match_length(self, end: int) -> int:
        """How many tokens before `end` equal the last ones; the pair is known to."""
        tokens = self._tokens
        length = 2
        while length < MAX_MATCH and length < end and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        return length

    def _continuation(self, start: int, count: int) -> tuple[int, ...]:
        """Tokens from `start` on; a match that reaches the end repeats its period."""
        found = self._tokens[start : start + count]
        period = len(found)
        while len(found) < count:
            found.append(found[-period])
        return tuple(found)


class NgramProposer:
    """See the module; sequences learn nothing from one another."""

    def follow(self, tenant: str) -> NgramFollower:
        """Begin with a new sequence."""
        return NgramFollower()
