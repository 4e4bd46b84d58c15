"""The nouns of the filters: rules, matches, and the protocol of whatever finds them."""

from dataclasses import dataclass
from typing import Literal, Protocol

Action = Literal["stop", "mask", "replace"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about a match.

    Args:
        name: for logs and tests; never shown to the reader.
        action: "stop" ends the answer before the match, "mask" puts a star for each character of it, "replace" puts
            `replacement` in its place.
        replacement: see `action`.
    """

    name: str
    action: Action = "mask"
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """Characters [start, end) of the text, counted from its beginning, fall under a rule.

    Args:
        unless_shown: place of a letter right after it that makes it a part of something else ("bad" in "badger"), as
            long as that letter is shown; -1 when it falls under the rule whatever follows.
    """

    start: int
    end: int
    rule: Rule
    unless_shown: int = -1


class Matcher(Protocol):
    """Reads a text piece by piece and tells every match, whatever the pieces are."""

    @property
    def open_from(self) -> int:
        """Where the earliest match that may still come would start; the length of the text when none has begun."""
        ...

    def feed(self, text: str) -> list[Match]:
        """Take more text; the matches that have become certain, on a condition perhaps."""
        ...

    def finish(self) -> list[Match]:
        """The text ends here; the matches that this makes certain."""
        ...


class MatcherFactory(Protocol):
    """Compiled once, asked for a fresh matcher for each text."""

    def matcher(self) -> Matcher:
        """A matcher at the beginning of a text."""
        ...

    def may_hold(self, char: str) -> bool:
        """Whether a character can be a part of a match, or stand beside one so that it is none."""
        ...
