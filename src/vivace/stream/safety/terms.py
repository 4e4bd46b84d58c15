"""Blocked terms: all of them found in one pass, while the text arrives.

Aho and Corasick (1975), with two additions: characters are folded one by one, with the way back to the place in the
text; and each state knows how much of the text is a proper prefix of some term, which is all that is held back.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vivace.stream.safety.folding import fold, is_invisible, is_word_char
from vivace.stream.safety.matches import Match, Rule
from vivace.types.errors import ConfigError

MAX_TERM = 256


@dataclass(frozen=True, slots=True)
class _Term:
    """Length after folding, and whether a letter just before or after the match means that it is none."""

    length: int
    bound_left: bool
    bound_right: bool


class BlockedTerms:
    """Terms of any script, without regard to case, width, invisible characters and number of blanks.

    A term that begins or ends with a letter of a script that puts blanks between words matches whole words only ("ass"
    is not in "class"); Chinese and Japanese terms match anywhere.

    Args:
        terms: as people write them.
        rule: what is done about each.

    Raises:
        ConfigError: a term is empty or longer than MAX_TERM characters.
    """

    def __init__(self, terms: Iterable[str], rule: Rule) -> None:
        self.rule = rule
        self._next: list[dict[str, int]] = [{}]
        self._found: list[list[_Term]] = [[]]
        self._depth = [0]
        for term in terms:
            self._add(term)
        self._fail = [0] * len(self._next)
        self._open_depth = [0] * len(self._next)
        self._link()

    def matcher(self) -> "TermMatcher":
        """A matcher at the beginning of a text."""
        return TermMatcher(self)

    def step(self, state: int, char: str) -> int:
        """The state after one more folded character."""
        while state and char not in self._next[state]:
            state = self._fail[state]
        return self._next[state].get(char, 0)

    def found(self, state: int) -> list[_Term]:
        """The terms that end in this state."""
        return self._found[state]

    def open_depth(self, state: int) -> int:
        """How many of the last folded characters are a proper prefix of some term."""
        return self._open_depth[state]

    @property
    def max_depth(self) -> int:
        """Length of the longest term."""
        return max(self._depth)

    def may_hold(self, char: str) -> bool:
        """Whether a character can be a part of a term in a text, or of the word that a term stands in."""
        return is_word_char(char) or is_invisible(char) or any(part in row for part in fold(char) for row in self._next)

    def _add(self, term: str) -> None:
        folded = fold_text(term)
        if not folded or len(folded) > MAX_TERM:
            raise ConfigError(f"The blocked term {term[:40]!r} has {len(folded)} characters.", f"Give 1 to {MAX_TERM}.")
        state = 0
        for char in folded:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._found.append([])
                self._depth.append(self._depth[state] + 1)
            state = self._next[state][char]
        row = _Term(len(folded), is_word_char(folded[0]), is_word_char(folded[-1]))
        if row not in self._found[state]:
            self._found[state].append(row)

    def _link(self) -> None:
        """Failure links, breadth first; a state also finds what its failure state finds."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            fail = self._fail[state]
            self._found[state] = self._found[state] + self._found[fail]
            self._open_depth[state] = self._depth[state] if self._next[state] else self._open_depth[fail]
            for char, child in self._next[state].items():
                self._fail[child] = self.step(fail, char)
                queue.append(child)


def fold_text(text: str) -> str:
    """A text as terms are compared: folded, runs of blanks as one space, no blanks at its ends."""
    return " ".join("".join(map(fold, text)).split())


class TermMatcher:
    """Finds the terms in one text."""

    __slots__ = ("_at", "_last_folded", "_last_is_word", "_pending", "_places", "_state", "_terms")

    def __init__(self, terms: BlockedTerms) -> None:
        self._terms = terms
        self._state = 0
        self._at = 0
        self._last_folded = ""
        self._last_is_word = False
        self._places: deque[tuple[int, bool]] = deque(maxlen=max(1, terms.max_depth))
        self._pending: list[Match] = []

    @property
    def open_from(self) -> int:
        """See Matcher."""
        depth = self._terms.open_depth(self._state)
        prefix_from = self._places[-depth][0] if depth else self._at
        return min(prefix_from, *(match.start for match in self._pending)) if self._pending else prefix_from

    def feed(self, text: str) -> list[Match]:
        """See Matcher."""
        matches: list[Match] = []
        for char in text:
            if not is_invisible(char):
                self._read(char, matches)
            self._at += 1
        return matches

    def finish(self) -> list[Match]:
        """See Matcher."""
        pending, self._pending = self._pending, []
        self._state = 0
        return pending

    def _read(self, char: str, matches: list[Match]) -> None:
        is_word = is_word_char(char)
        if self._pending:
            matches.extend(replace(match, unless_shown=self._at) if is_word else match for match in self._pending)
            self._pending = []
        for folded in fold(char):
            if folded == " " == self._last_folded:
                continue
            self._last_folded = folded
            self._state = self._terms.step(self._state, folded)
            self._places.append((self._at, self._last_is_word))
            for term in self._terms.found(self._state):
                start, follows_word = self._places[-term.length]
                if not (term.bound_left and follows_word):
                    match = Match(start, self._at + 1, self._terms.rule)
                    (self._pending if term.bound_right else matches).append(match)
        self._last_is_word = is_word
