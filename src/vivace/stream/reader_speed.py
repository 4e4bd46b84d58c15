"""How fast one reader reads, learnt from what it says it has read (acknowledgements, or how far it has scrolled)."""

from collections import deque

SLOWEST, FASTEST = 0.5, 10.0
LEARNING = 0.5
"""Weight of the newest measurement."""
AHEAD = 1.25
"""A reader that had to wait for us can read faster than was seen: it is given this much more."""
LEAST_INTERVAL_S = 0.2
"""Two reports closer than this tell nothing about speed."""
MAX_UNREAD = 4096
"""Events shown and not reported read that are remembered; the oldest are forgotten beyond it."""


class ReaderSpeed:
    """Speed of one reader, 1 being that of `pacing`'s constants. The caller tells the time.

    While the reader has text left, the reading time it reports over the time it took is its speed. When it has read all
    it was shown, it may have waited, so what was seen is the least it can do: its speed only rises then.
    """

    __slots__ = ("_read_s", "_since_s", "_unread", "speed")

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._unread: deque[tuple[int, float]] = deque(maxlen=MAX_UNREAD)
        self._since_s: float | None = None
        self._read_s = 0.0

    def note_shown(self, number: int, reading_s: float, now_s: float) -> None:
        """An event was sent."""
        if not self._unread and self._since_s is None:
            self._since_s = now_s
        self._unread.append((number, reading_s))

    def note_read(self, number: int, now_s: float) -> bool:
        """Everything up to and with an event was read; whether that is all there was to read."""
        while self._unread and self._unread[0][0] <= number:
            self._read_s += self._unread.popleft()[1]
        has_caught_up = not self._unread
        took_s = 0.0 if self._since_s is None else now_s - self._since_s
        if self._read_s > 0 and (took_s >= LEAST_INTERVAL_S or has_caught_up):
            self._learn(self._read_s / max(took_s, LEAST_INTERVAL_S), has_caught_up)
            self._read_s, self._since_s = 0.0, now_s
        if has_caught_up:
            self._since_s = None
        return has_caught_up

    def _learn(self, seen: float, has_caught_up: bool) -> None:
        speed = max(self.speed, seen) * AHEAD if has_caught_up else self.speed + LEARNING * (seen - self.speed)
        self.speed = min(FASTEST, max(SLOWEST, speed))
