"""Events of a step reach all their queues in order, with one wake-up of the event loop."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from vivace.engine.mailbox import Mailbox
from vivace.types.events import EngineEvent, TokenEvent


def token(number: int) -> list[EngineEvent]:
    return [TokenEvent("r", 0, number, number)]


def test_what_is_posted_at_a_time_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakes: list[object] = []
        plain = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda call: (wakes.append(call), plain(call))[1])
        mailbox, queues = Mailbox(loop), [asyncio.Queue[Sequence[EngineEvent]]() for _ in range(16)]
        for step in range(2):
            for queue in queues:
                mailbox.post(queue, token(step))
        assert [await queue.get() for queue in queues for _ in range(2)] == [token(0), token(1)] * 16
        assert len(wakes) == 1
        mailbox.post(queues[0], token(2))
        assert await queues[0].get() == token(2)
        assert len(wakes) == 2

    asyncio.run(scenario())


def test_nothing_is_lost_or_reordered_between_threads() -> None:
    count = 20_000

    async def scenario() -> list[int]:
        mailbox, queue = Mailbox(asyncio.get_running_loop()), asyncio.Queue[Sequence[EngineEvent]]()

        def post_all() -> None:
            for number in range(count):
                mailbox.post(queue, token(number))

        poster = threading.Thread(target=post_all)
        poster.start()
        found = [event.index for _ in range(count) for event in await queue.get() if isinstance(event, TokenEvent)]
        poster.join()
        return found

    assert asyncio.run(scenario()) == list(range(count))


def test_a_closed_loop_is_told_of_at_every_post() -> None:
    loop = asyncio.new_event_loop()
    mailbox, queue = Mailbox(loop), asyncio.Queue[Sequence[EngineEvent]]()
    loop.close()
    for number in range(2):
        with pytest.raises(RuntimeError):
            mailbox.post(queue, token(number))
