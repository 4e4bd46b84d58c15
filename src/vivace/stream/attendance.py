"""Who reads a stream, and what follows when the last reader has left.

Owns the count of readers and the timer that runs while there are none. Belongs to one event loop.
"""

import asyncio
from collections.abc import Callable

ATTACH_S = 10.0
"""A first reader has this long to attach before the disconnect policy counts it as gone."""


class Attendance:
    """Readers of one stream.

    Args:
        keep_s: seconds the work goes on without a reader; None: to its end.
        on_left: called once nobody has read for so long.
        has_ended: whether there is nothing left to end.
    """

    def __init__(self, keep_s: float | None, on_left: Callable[[], None], has_ended: Callable[[], bool]) -> None:
        self._keep_s = keep_s
        self._on_left = on_left
        self._has_ended = has_ended
        self._timer: asyncio.TimerHandle | None = None
        self.num_readers = 0

    def enter(self) -> None:
        """A reader has come."""
        self.num_readers += 1
        self.stop()

    def leave(self) -> None:
        """A reader has left."""
        self.num_readers -= 1
        self.watch()

    def watch(self, at_least_s: float = 0.0) -> None:
        """From now on nobody reads: after the policy's time, and at least so long, the work has been left."""
        if self.num_readers or self._keep_s is None or self._has_ended():
            return
        wait_s = max(self._keep_s, at_least_s)
        if wait_s <= 0:
            self._on_left()
            return
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_left)

    def stop(self) -> None:
        """Wait for nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
