"""What a stream does about time: a warning when tokens stay away, an end when they stay away too long, a last moment.

Belongs to one event loop. The clock of the hard timeout starts with the first token: how long a request may wait in the
queue and read its prompt is the queue's to limit.
"""

import asyncio
from collections.abc import Callable

from vivace.stream.options import RunOptions


class Timeouts:
    """Timers of one stream.

    Args:
        options: with the three times.
        on_slow: called when no token came for `soft_timeout_s`, once for each wait.
        on_late: called when the answer has to end.
    """

    def __init__(self, options: RunOptions, on_slow: Callable[[], None], on_late: Callable[[], None]) -> None:
        self._options = options
        self._on_slow, self._on_late = on_slow, on_late
        self._soft: asyncio.TimerHandle | None = None
        self._hard: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The work begins."""
        self._deadline = _later(self._options.deadline_s, self._on_late)
        self._soft = _later(self._options.soft_timeout_s, self._on_slow)

    def note_token(self) -> None:
        """Something came; the next wait begins."""
        _cancel(self._soft, self._hard)
        self._soft = _later(self._options.soft_timeout_s, self._on_slow)
        self._hard = _later(self._options.hard_timeout_s, self._on_late)

    def stop(self) -> None:
        """Nothing is waited for any more."""
        _cancel(self._soft, self._hard, self._deadline)


def _later(delay_s: float | None, call: Callable[[], None]) -> asyncio.TimerHandle | None:
    return None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, call)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
