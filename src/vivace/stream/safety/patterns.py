"""Patterns over text that still grows: each possible start is one state of the pattern's automaton.

A start is dropped as soon as nothing can come of it; two starts in one state have the same future, and the earlier one
covers the later. So the work for a character is bounded by the pattern, never by the text.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from vivace.stream.safety.expressions import CharSet, Expression, Subset
from vivace.stream.safety.folding import is_invisible, narrow
from vivace.stream.safety.matches import Match, Rule

Check = Callable[[str], bool]
"""Tells whether a text that has the form of something is one: a check digit, for instance."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern and what may not stand beside a match of it (which would make it a part of something else)."""

    expression: Expression
    rule: Rule
    not_beside: CharSet
    check: Check | None = None

    def matcher(self) -> "PatternMatcher":
        """A matcher at the beginning of a text."""
        return PatternMatcher(self)

    def may_hold(self, char: str) -> bool:
        """Whether a character can be a part of a match, or stand beside one so that it is none."""
        char = narrow(char)
        return char in self.not_beside or is_invisible(char) or self.expression.may_hold(char)


class PatternMatcher:
    """Finds one pattern in one text."""

    __slots__ = ("_alive", "_at", "_pattern", "_pending", "_previous", "_start", "_tail", "_tail_at")

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._start = pattern.expression.start
        self._at = 0
        self._previous = ""
        self._alive: list[tuple[Subset, int]] = []
        self._pending: list[Match] = []
        self._tail, self._tail_at = "", 0  # the text from the earliest start on, for the check

    @property
    def open_from(self) -> int:
        """See Matcher."""
        starts = [start for _, start in self._alive]
        starts.extend(match.start for match in self._pending)
        return min(starts, default=self._at)

    def feed(self, text: str) -> list[Match]:
        """See Matcher."""
        matches: list[Match] = []
        if self._pattern.check is not None:
            self._tail += text
        for char in text:
            if not is_invisible(char):
                self._read(narrow(char), matches)
            self._at += 1
        if self._tail:
            keep_from = self.open_from
            self._tail, self._tail_at = self._tail[keep_from - self._tail_at :], keep_from
        return matches

    def finish(self) -> list[Match]:
        """See Matcher."""
        pending, self._pending, self._alive = self._pending, [], []
        return pending

    def _read(self, char: str, matches: list[Match]) -> None:
        beside = self._pattern.not_beside
        if self._pending:
            is_part = char in beside
            matches.extend(replace(match, unless_shown=self._at) if is_part else match for match in self._pending)
            self._pending = []
        previous, self._previous = self._previous, char
        begun = self._start.step(char)
        if begun is None and not self._alive:
            return
        alive: list[tuple[Subset, int]] = []
        for subset, start in self._alive:
            following = subset.step(char)
            if following is not None:
                self._follow(following, start, alive)
        if begun is not None and (not previous or previous not in beside):
            self._follow(begun, self._at, alive)
        self._alive = alive

    def _follow(self, subset: Subset, start: int, alive: list[tuple[Subset, int]]) -> None:
        """A start has come to this state: note a match, and go on where more may come."""
        if subset.accepts and self._is_true(start):
            self._pending.append(Match(start, self._at + 1, self._pattern.rule))
        if subset.is_open and not self._is_covered(subset, alive):
            alive.append((subset, start))

    def _is_covered(self, subset: Subset, alive: list[tuple[Subset, int]]) -> bool:
        """Whether an earlier start is in the same state; where matches are checked each start stands for itself."""
        return self._pattern.check is None and any(other is subset for other, _ in alive)

    def _is_true(self, start: int) -> bool:
        check = self._pattern.check
        if check is None:
            return True
        text = self._tail[start - self._tail_at : self._at + 1 - self._tail_at]
        return check("".join(narrow(char) for char in text if not is_invisible(char)))
