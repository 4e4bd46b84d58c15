"""A suffix automaton over token ids: every substring of a text, in time and memory linear in its length.

Blumer et al. (1985); built online, one token at a time, amortised O(1).
"""

from collections.abc import Sequence

SEPARATOR = -1  # stands between texts; no token id, so no match and no continuation crosses it


class SuffixAutomaton:
    """States are classes of substrings that end at the same places. State 0 is the empty string.

    `text` holds everything that was added, separators included. The number of states is at most twice its length.
    """

    def __init__(self) -> None:
        self.text: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._end: list[int] = [0]  # index after the first occurrence
        self._last = 0

    @property
    def num_states(self) -> int:
        """States, the empty string's included."""
        return len(self._next)

    def add(self, tokens: Sequence[int]) -> None:
        """Add a text, closed by a separator."""
        for token in tokens:
            self._append(token)
        self._append(SEPARATOR)

    def step(self, state: int, matched: int, token: int) -> tuple[int, int]:
        """Follow one token.

        Args:
            state: where the longest matching suffix of a query stands.
            matched: its length.
            token: the next token of the query.

        Returns:
            State and length of the longest suffix of the longer query that occurs in the text. Amortised O(1).
        """
        links, lengths = self._link, self._length
        while state and matched <= lengths[links[state]]:  # the state was split since
            state = links[state]
        while state and token not in self._next[state]:
            state = links[state]
            matched = lengths[state]
        following = self._next[state].get(token)
        return (0, 0) if following is None else (following, matched + 1)

    def continuation(self, state: int, count: int) -> tuple[int, ...]:
        """At most `count` tokens that followed the first occurrence of a state's strings in the same text."""
        end = self._end[state]
        found = self.text[end : end + count]
        return tuple(found[: found.index(SEPARATOR)] if SEPARATOR in found else found)

    def _append(self, token: int) -> None:
        self.text.append(token)
        current = self._new_state({}, 0, self._length[self._last] + 1, len(self.text))
        state = self._last
        while state != -1 and token not in self._next[state]:
            self._next[state][token] = current
            state = self._link[state]
        if state != -1:
            following = self._next[state][token]
            if self._length[following] != self._length[state] + 1:
                following = self._split(state, token, following)
            self._link[current] = following
        self._last = current

    def _split(self, state: int, token: int, following: int) -> int:
        """Give the shorter strings of `following`, up to those that come from `state`, a state of their own."""
        length = self._length[state] + 1
        clone = self._new_state(dict(self._next[following]), self._link[following], length, self._end[following])
        self._link[following] = clone
        walk: int = state
        while walk != -1 and self._next[walk].get(token) == following:
            self._next[walk][token] = clone
            walk = self._link[walk]
        return clone

    def _new_state(self, following: dict[int, int], link: int, length: int, end: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        self._end.append(end)
        return len(self._next) - 1
