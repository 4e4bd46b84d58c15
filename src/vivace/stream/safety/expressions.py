"""A small regular-expression language that runs in linear time: no back references, no look-around.

Thompson's construction (1968) into an automaton whose subsets are made when they are first needed. Understood are
literals, `.`, classes, `\\d \\w \\s` (ASCII), groups, `|`, and the quantifiers `? * + {m} {m,} {m,n}`.
"""

from dataclasses import dataclass, field

from vivace.types.errors import ConfigError

MAX_STATES = 4000
"""Largest automaton; counts such as {1,64} repeat their part that often."""
MAX_SUBSETS = 2000
"""Subsets that are remembered; more are made again when needed."""

_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CLASSES = {"d": _DIGITS, "w": _DIGITS | _LETTERS | {"_"}, "s": frozenset(" \t\n\r\f\v")}


@dataclass(frozen=True, slots=True)
class CharSet:
    """The characters in `chars`, or all others."""

    chars: frozenset[str]
    is_negated: bool = False

    def __contains__(self, char: str) -> bool:
        return (char in self.chars) is not self.is_negated


@dataclass(slots=True)
class _State:
    chars: CharSet | None = None  # None: `targets` are reached without a character
    targets: list[int] = field(default_factory=list)


class Subset:
    """A state of the automaton as it runs. `accepts`: what was read is a match. `is_open`: more may be read."""

    __slots__ = ("_expression", "_next", "_states", "accepts", "is_open")

    def __init__(self, expression: "Expression", states: frozenset[int]) -> None:
        self._expression = expression
        self._states = states
        self._next: dict[str, Subset | None] = {}
        self.accepts = expression.accepting in states
        self.is_open = any(expression.states[state].chars is not None for state in states)

    def step(self, char: str) -> "Subset | None":
        """The state after one more character; None when no match can come of it."""
        try:
            return self._next[char]
        except KeyError:
            following = self._expression.after(self._states, char)
            if len(self._next) < 1024:
                self._next[char] = following
            return following


class Expression:
    """A compiled expression.

    Raises:
        ConfigError: the text is not of the language above, or its automaton is too large.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.states: list[_State] = []
        self._subsets: dict[frozenset[int], Subset] = {}
        parser = _Parser(pattern, self)
        first, last = parser.parse()
        self.accepting = last
        self.start = self._subset(self._closure({first}))
        if self.start.accepts:
            raise ConfigError(f"The pattern {pattern!r} matches the empty text.", "Make some part of it required.")

    def new_state(self, chars: CharSet | None = None) -> int:
        """One more state of the automaton.

        Raises:
            ConfigError: there are too many.
        """
        if len(self.states) >= MAX_STATES:
            raise ConfigError(f"The pattern {self.pattern!r} is too large.", "Use smaller counts.")
        self.states.append(_State(chars))
        return len(self.states) - 1

    def may_hold(self, char: str) -> bool:
        """Whether some text that matches holds this character."""
        return any(state.chars is not None and char in state.chars for state in self.states)

    def after(self, states: frozenset[int], char: str) -> Subset | None:
        """The subset that `char` leads to."""
        reached: set[int] = set()
        for number in states:
            state = self.states[number]
            if state.chars is not None and char in state.chars:
                reached.update(state.targets)
        return self._subset(self._closure(reached)) if reached else None

    def _closure(self, states: set[int]) -> frozenset[int]:
        seen, stack = set(states), list(states)
        while stack:
            state = self.states[stack.pop()]
            if state.chars is None:
                fresh = [target for target in state.targets if target not in seen]
                seen.update(fresh)
                stack.extend(fresh)
        return frozenset(seen)

    def _subset(self, states: frozenset[int]) -> Subset:
        subset = self._subsets.get(states)
        if subset is None:
            if len(self._subsets) >= MAX_SUBSETS:
                self._subsets.clear()
            subset = self._subsets[states] = Subset(self, states)
        return subset


Fragment = tuple[int, int]
"""First and last state of a part of the automaton; the last has no way out yet."""


class _Parser:
    """Recursive descent over the pattern; a repeated part is parsed again from its place for each copy."""

    def __init__(self, pattern: str, expression: Expression) -> None:
        self._pattern = pattern
        self._at = 0
        self._out = expression

    def parse(self) -> Fragment:
        whole = self._alternatives()
        if self._at < len(self._pattern):
            raise self._error("an unexpected )")
        return whole

    def _alternatives(self) -> Fragment:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        first, last = self._out.new_state(), self._out.new_state()
        for branch in branches:
            self._join(first, branch[0])
            self._join(branch[1], last)
        return first, last

    def _sequence(self) -> Fragment:
        first = last = self._out.new_state()
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            part = self._repeated()
            self._join(last, part[0])
            last = part[1]
        return first, last

    def _repeated(self) -> Fragment:
        begin = self._at
        part = self._atom()
        end = self._at
        low, high = self._quantifier()
        after = self._at
        copies = [part]
        while len(copies) < max(low, high or 0, 1):
            self._at = begin
            copies.append(self._atom())
            assert self._at == end
        self._at = after
        return self._chain(copies, low, high)

    def _chain(self, copies: list[Fragment], low: int, high: int | None) -> Fragment:
        first = self._out.new_state()
        last, exits = first, []
        for number, copy in enumerate(copies):
            if number >= low:
                exits.append(last)
            self._join(last, copy[0])
            last = copy[1]
        end = self._out.new_state()
        for place in (*exits, last):
            self._join(place, end)
        if high is None:
            self._join(copies[-1][1], copies[-1][0])
        return first, end

    def _quantifier(self) -> tuple[int, int | None]:
        for sign, bounds in (("?", (0, 1)), ("*", (0, None)), ("+", (1, None))):
            if self._take(sign):
                return bounds
        if not self._take("{"):
            return 1, 1
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at : max(end, self._at)].partition(",")
        if end < 0 or not low.isdecimal() or not (high.isdecimal() or high == ""):
            raise self._error("a count that is not {m}, {m,} or {m,n}")
        self._at = end + 1
        most = int(low) if not comma else int(high) if high else None
        if most is not None and (most < int(low) or most == 0):
            raise self._error("a count that runs backwards")
        return int(low), most

    def _atom(self) -> Fragment:
        if self._take("("):
            if self._take("?") and not self._take(":"):
                raise self._error("a group that is not (?:...) or (...)")
            group = self._alternatives()
            if not self._take(")"):
                raise self._error("a ( without its )")
            return group
        char = self._next_char()
        if char == "[":
            return self._one(self._class())
        if char == ".":
            return self._one(CharSet(frozenset("\n"), True))
        if char == "\\":
            return self._one(CharSet(self._escape()))
        if char in "*+?{})]^$":
            raise self._error(f"a {char} that has to be written \\{char}")
        return self._one(CharSet(frozenset(char)))

    def _class(self) -> CharSet:
        is_negated = self._take("^")
        chars: set[str] = set()
        while not self._take("]"):
            char = self._next_char()
            if char == "\\":
                chars |= self._escape()
            elif self._pattern[self._at : self._at + 1] == "-" and self._pattern[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                chars |= {chr(code) for code in range(ord(char), ord(self._next_char()) + 1)}
            else:
                chars.add(char)
        return CharSet(frozenset(chars), is_negated)

    def _escape(self) -> frozenset[str]:
        char = self._next_char()
        if char in _CLASSES:
            return _CLASSES[char]
        if char.isalnum():
            raise self._error(f"\\{char}, which has no meaning here")
        return frozenset(char)

    def _one(self, chars: CharSet) -> Fragment:
        last = self._out.new_state()
        first = self._out.new_state(chars)
        self._out.states[first].targets.append(last)
        return first, last

    def _join(self, source: int, target: int) -> None:
        self._out.states[source].targets.append(target)

    def _take(self, char: str) -> bool:
        if self._pattern[self._at : self._at + 1] != char:
            return False
        self._at += 1
        return True

    def _next_char(self) -> str:
        if self._at >= len(self._pattern):
            raise self._error("no end")
        self._at += 1
        return self._pattern[self._at - 1]

    def _error(self, what: str) -> ConfigError:
        return ConfigError(
            f"The pattern {self._pattern!r} has {what} at place {self._at}.", "See docs/streaming.md for the syntax."
        )
