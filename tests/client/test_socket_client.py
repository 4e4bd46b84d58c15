"""The Python client over WebSockets, against a real server and a proxy that cuts: every event once, in order."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from factories.cutting_proxy import cutting_proxy
from factories.live_server import LiveServer, live_server
from factories.scripted_service import ScriptedService
from vivace.client import AsyncSocketClient, Position, RetryPolicy, SocketClient, StreamBrokenError
from vivace.client.dialogue import Dialogue, TryAgainError
from vivace.server.config import ServerConfig

PIECES = tuple(f"{number} 你好🎉, " for number in range(40))
TEXT = "".join(PIECES)
HELLO = [{"role": "user", "content": "hello"}]
QUICK = RetryPolicy(base_s=0.001, max_wait_s=0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(lambda: ScriptedService(PIECES)) as live:
        yield live


class Cuts:
    """Bytes for each connection; after `count` of them connections are left alone."""

    def __init__(self, seed: int, count: int) -> None:
        self.rng, self.left, self.done = random.Random(seed), count, 0

    def __call__(self) -> int | None:
        if self.left == 0:
            return None
        self.left -= 1
        self.done += 1
        return self.rng.randint(0, 1200)


def test_cuts_at_random_places_lose_and_double_nothing(server: LiveServer) -> None:
    num_cuts = 0
    for seed in range(5):
        cuts = Cuts(seed, 6)
        with cutting_proxy(server.port, cuts) as url:
            events = list(SocketClient(url, retry=QUICK).send(HELLO))
        assert "".join(event.text for event in events) == TEXT
        assert [event.number for event in events] == list(range(1, len(PIECES) + 3))
        num_cuts += cuts.done
    assert num_cuts > 15


def test_the_async_client_does_the_same(server: LiveServer) -> None:
    async def scenario() -> str:
        answer = AsyncSocketClient(url, retry=QUICK).send(HELLO)
        return "".join([text async for text in answer.text()])

    with cutting_proxy(server.port, Cuts(1, 6)) as url:
        assert asyncio.run(scenario()) == TEXT


def test_a_position_resumes_in_another_client(server: LiveServer) -> None:
    answer = SocketClient(server.url).send(HELLO)
    events = iter(answer)
    head = [next(events).text for _ in range(10)]
    events.close()
    rest = SocketClient(server.url).resume(answer.position).text()
    assert "".join([*head, *rest]) == TEXT


def test_stopping_ends_the_work_and_may_be_said_twice() -> None:
    service = ScriptedService(PIECES, hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        answer = SocketClient(server.url).send(HELLO, stream_options={"events": True})
        events = iter(answer)
        head = [next(events).text for _ in range(2)]
        answer.stop()
        answer.stop()
        rest = list(events)
    assert (rest[-1].name, rest[-1].data["status"]) == ("end", "cancelled")
    assert TEXT.startswith("".join([*head, *(event.text for event in rest)]))


def test_the_async_client_stops_paces_and_acknowledges() -> None:
    service = ScriptedService(PIECES, hold_at=30, warm_up_passes=True)

    async def scenario(url: str) -> list[Any]:
        answer = AsyncSocketClient(url).send(HELLO, stream_options={"events": True, "pace": "reader"})
        events = []
        async for event in answer:
            events.append(event)
            if len(events) == 2:
                await answer.pace("off")
                await answer.acknowledge(event.number, buffer_s=0.5, buffer_utilisation=0.5)
            if len(events) == 25:
                await answer.stop()
        return events

    with live_server(lambda: service) as server:
        events = asyncio.run(scenario(server.url))
        with server.client() as http:
            figures = http.get("/metrics").text
    assert events[-1].data["status"] == "cancelled"
    assert "vivace_stream_client_buffer_utilisation_sum 0.5" in figures


def test_what_was_wanted_is_said_again_on_the_next_connection() -> None:
    dialogue = Dialogue({"messages": []}, Position())
    assert '"type":"send"' in dialogue.opening()
    dialogue.take(b'{"type":"stream","id":"answer","stream_id":"s","starting_after":0}')
    dialogue.take(b'{"type":"event","id":"answer","number":3,"name":"","data":{}}')
    dialogue.pace("reader", 2.0)
    dialogue.stop()
    assert '"type":"resume"' in dialogue.opening() and '"starting_after":3' in dialogue.opening()
    assert [word in wish for wish, word in zip(dialogue.wishes(), ('"speed":2.0', '"stop"'), strict=True)] == [True] * 2
    assert dialogue.take(b'{"type":"event","id":"answer","number":3,"name":"","data":{}}') == (None, False)
    with pytest.raises(TryAgainError):
        dialogue.take(b'{"type":"error","id":"answer","error":{"message":"m","code":"stream_moved"}}')
    told = dialogue.take(b'{"type":"network","id":"answer","quality":"poor","send_every_s":0.25}')[0]
    assert told is not None and told.data["quality"] == "poor"


def test_what_the_server_refuses_is_told_and_not_tried_again(server: LiveServer) -> None:
    waits: list[float] = []
    client = SocketClient(server.url, sleep=waits.append)
    with pytest.raises(StreamBrokenError, match="temperature") as refused:
        list(client.send(HELLO, temperature=9).text())
    assert (refused.value.error_code, waits) == ("invalid_request", [])
    with pytest.raises(StreamBrokenError) as unknown:
        list(client.resume(Position(stream_id="stream-none")))
    assert unknown.value.error_code == "stream_not_found"
    with live_server(ScriptedService, ServerConfig(port=0, api_key="key", drain_s=1)) as guarded:
        with pytest.raises(StreamBrokenError) as unwelcome:
            list(SocketClient(guarded.url, sleep=waits.append).send(HELLO))
        assert (unwelcome.value.status, waits) == (401, [])
        assert "".join(SocketClient(guarded.url, "key").send(HELLO).text())


def test_a_failure_in_band_is_raised() -> None:
    service = ScriptedService(PIECES, fail_at=2, warm_up_passes=True)
    with live_server(lambda: service) as server, pytest.raises(StreamBrokenError, match="script says so"):
        list(SocketClient(server.url).send(HELLO))


def test_a_server_that_never_answers_is_given_up() -> None:
    waits: list[float] = []
    client = SocketClient("http://127.0.0.1:9", retry=RetryPolicy(max_tries=4), sleep=waits.append)
    with pytest.raises(StreamBrokenError, match="connection was lost"):
        list(client.send(HELLO))
    assert len(waits) == 3
