"""Stop strings over streamed text: nothing of a stop string is ever shown, and nothing else is held back for long."""

from collections.abc import Sequence

from vivace.types.errors import RequestError


class StopMatcher:
    """Watches a text that arrives in pieces for the first stop string that completes.

    The text ends where that stop string starts; if several complete at the same character, the longest counts. Only
    the longest tail that could still become a stop string is held back.

    Args:
        stops: the stop strings, in any order.

    Raises:
        RequestError: a stop string is empty.
    """

    __slots__ = ("_held", "_longest_prefix", "_matched", "_prefixes", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise RequestError("A stop string is empty.", "Give stop strings of at least one character.", param="stop")
        self._stops = tuple(dict.fromkeys(stops))
        self._prefixes = {stop[:length] for stop in stops for length in range(1, len(stop))}
        self._longest_prefix = max(map(len, self._prefixes), default=0)
        self._held = ""
        self._matched = False

    @property
    def matched(self) -> bool:
        """Whether a stop string has been found."""
        return self._matched

    @property
    def num_held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def feed(self, text: str) -> tuple[str, bool]:
        """Take more text; return what is now safe to show, and whether a stop string has been found.

        After a match nothing more is shown.
        """
        if self._matched:
            return "", True
        if not self._stops:
            return text, False
        text = self._held + text
        start = self._first_match(text)
        if start is not None:
            self._matched, self._held = True, ""
            return text[:start], True
        safe = len(text) - self._open_length(text)
        self._held = text[safe:]
        return text[:safe], False

    def finish(self) -> str:
        """The text ends here: what was held back, which is no stop string after all."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> int | None:
        """Start of the stop string that completes first in `text`."""
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _open_length(self, text: str) -> int:
        """Length of the longest tail of `text` that begins a stop string."""
        for length in range(min(len(text), self._longest_prefix), 0, -1):
            if text[-length:] in self._prefixes:
                return length
        return 0
