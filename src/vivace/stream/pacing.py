"""How fast text is shown: `off`, or at the pace of a reader, never slower than the reader.

What is sent early waits in a playback buffer whose length is bounded: text that is further ahead than that is sent at
once, so a fast answer is smoothed and never starved, and a slow one is passed on as it comes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from vivace.types.errors import RequestError

HAN_PER_S = 9.0
"""Chinese and Japanese characters a second: above the fast end of 300 to 500 a minute."""
WORDS_PER_S = 6.0
"""English words a second: above the fast end of 200 to 300 a minute; readers skim the rest."""
CODE_FACTOR = 0.25
"""Code is scanned, not read: it may appear four times as fast."""
DENSE_FACTOR = 1.5
"""Text with long words or many numbers is read slower."""
MAX_BUFFER_S = 3.0
"""Most reading time that is kept back."""

_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD_START = re.compile(r"(?:(?<=\s)|\A)[^\s\u3040-\u30ff\u3400-\u9fff]")
_DENSE = re.compile(r"\d{3,}|\w{14,}|[=≤≥∑∫±]")


class ReadingTime:
    """How long a person takes for each piece of one text; knows whether it stands in a block of code."""

    __slots__ = ("_in_code", "_line")

    def __init__(self) -> None:
        self._in_code = False
        self._line = ""

    def of(self, piece: str) -> float:
        """Seconds for the next piece of the text."""
        seconds = len(_HAN.findall(piece)) / HAN_PER_S + len(_WORD_START.findall(piece)) / WORDS_PER_S
        if self._in_code:
            seconds *= CODE_FACTOR
        elif _DENSE.search(piece):
            seconds *= DENSE_FACTOR
        self._watch_fences(piece)
        return seconds

    def _watch_fences(self, piece: str) -> None:
        *whole, self._line = (self._line + piece).split("\n")
        for line in whole:
            if line.lstrip().startswith("```"):
                self._in_code = not self._in_code
        self._line = self._line[-200:]


@dataclass(slots=True)
class Pacer:
    """When each event of a stream is shown to one reader.

    Args:
        max_buffer_s: most reading time that is kept back.
        speed: of this reader, 1 is the speed of the constants above; above 1 is faster.
    """

    max_buffer_s: float = MAX_BUFFER_S
    speed: float = 1.0
    read_until_s: float = 0.0

    def delay_s(self, reading_s: float, backlog_s: float, now_s: float) -> float:
        """How long the next event waits.

        Args:
            reading_s: of the event.
            backlog_s: reading time of the events behind it that are there already.
            now_s: the time.
        """
        start_s = max(now_s, self.read_until_s)
        kept_s = start_s - now_s + (reading_s + backlog_s) / self.speed
        early_s = max(0.0, kept_s - self.max_buffer_s)
        start_s = max(now_s, start_s - early_s)
        self.read_until_s = start_s + reading_s / self.speed
        return start_s - now_s


PACES: dict[str, Callable[[], Pacer | None]] = {"off": lambda: None, "reader": Pacer}
"""Paces by name; a pacer belongs to one reader."""


def pace(name: str) -> Callable[[], Pacer | None]:
    """A row of PACES.

    Raises:
        RequestError: there is none of that name.
    """
    row = PACES.get(name)
    if row is None:
        raise RequestError(
            f"There is no pace {name[:32]!r}.", f"Use one of {', '.join(PACES)}.", param="stream_options.pace"
        )
    return row
