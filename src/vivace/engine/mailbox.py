"""From the engine thread to an event loop: what a step brought for all of its streams costs one wake-up.

Waking a loop takes a lock and a write to a pipe, and once awake it looks at all its sockets: sixteen times a step that
is more than the events are worth.
"""

from asyncio import AbstractEventLoop, Queue
from collections import deque
from collections.abc import Sequence

from vivace.types.events import EngineEvent

Events = Sequence[EngineEvent]


class Mailbox:
    """Delivers events to queues of one event loop, in the order they were posted.

    Args:
        event_loop: where the queues live.
    """

    def __init__(self, event_loop: AbstractEventLoop) -> None:
        self._event_loop = event_loop
        self._posted: deque[tuple[Queue[Events], Events]] = deque()
        self._is_due = False  # the loop will deliver all that is posted until then

    def post(self, queue: Queue[Events], events: Events) -> None:
        """Have events put into a queue soon; called on the engine thread.

        Raises:
            RuntimeError: the event loop is closed.
        """
        self._posted.append((queue, events))
        if self._is_due:
            return
        self._is_due = True  # before it is asked, for it may deliver before this line's end
        try:
            self._event_loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            self._is_due = False
            self._posted.clear()
            raise

    def _deliver(self) -> None:
        self._is_due = False  # first: what is posted from now on asks again
        while self._posted:
            queue, events = self._posted.popleft()
            queue.put_nowait(events)
