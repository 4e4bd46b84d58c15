"""A stand-in for the engine that steps in a thread of its own, as the engine does: each step one token a stream."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable

from factories.scripted_service import ScriptedService
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.request import GenerationRequest


class SteppedService(ScriptedService):
    """Every stream gets `text` as one token a step, as often as its request wants tokens.

    Args:
        text: of each token.
        step_s: time between two steps.

    Attributes:
        late_s: by how much each step was late, which is how long something kept the engine's thread from running.
    """

    def __init__(self, text: str, step_s: float) -> None:
        super().__init__(warm_up_passes=True, context_length=10**6)
        self.late_s: list[float] = []
        self._text, self._step_s = text, step_s
        self._sinks: set[Callable[[], None]] = set()
        threading.Thread(target=self._step_for_ever, daemon=True).start()

    def _step_for_ever(self) -> None:
        due_s = time.monotonic()
        while not self.closed.is_set():
            due_s += self._step_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.late_s.append(time.monotonic() - due_s)
            for sink in tuple(self._sinks):
                sink()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[AnswerChunk, None]:
        """A token a step."""
        self.requests.append(request)
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[None]()

        def sink() -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, None)

        self._sinks.add(sink)
        wanted, num_said = request.stopping.max_tokens or 0, 0
        try:
            while num_said < wanted and not self._ended(request):
                await arrived.get()
                num_said += 1
                yield AnswerChunk(0, self._text, (1,))
        finally:
            self._sinks.discard(sink)
        reason = "cancelled" if self._ended(request) else "length"
        yield AnswerChunk(0, "", finish_reason=reason, usage=Usage(len(request.prompt_ids), num_said))  # type: ignore[arg-type]
