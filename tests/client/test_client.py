"""The client over a network that breaks: nothing lost, nothing doubled, and an honest end."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from factories.cutting_proxy import cutting_proxy
from factories.live_server import LiveServer, live_server
from factories.scripted_service import ScriptedService
from vivace.client import AsyncClient, Client, RetryPolicy, StreamBrokenError
from vivace.client.events import Position
from vivace.client.retry import Backoff

PIECES = tuple(f"{number} 你好👩‍👩‍👧, " for number in range(40))
TEXT = "".join(PIECES)
HELLO = [{"role": "user", "content": "hello"}]
QUICK = RetryPolicy(base_s=0.001, max_wait_s=0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(lambda: ScriptedService(PIECES)) as live:
        yield live


class Cuts:
    """Bytes for each connection; the last of `count` cuts is followed by connections that are left alone."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self.rng, self.left = rng, count

    def __call__(self) -> int | None:
        if self.left == 0:
            return None
        self.left -= 1
        return self.rng.randint(0, 2500)


def read_through_cuts(port: int, seed: int, count: int) -> int:
    """Read one answer through at most `count` cuts; how many there were."""
    cuts = Cuts(random.Random(seed), count)
    with cutting_proxy(port, cuts) as url, Client(url, retry=QUICK) as client:
        events = list(client.events(HELLO))
    assert "".join(event.text for event in events) == TEXT
    assert [event.number for event in events] == list(range(1, len(PIECES) + 3))
    return count - cuts.left


def test_cuts_at_random_places_lose_and_double_nothing(server: LiveServer) -> None:
    assert sum(read_through_cuts(server.port, seed, count=6) for seed in range(6)) > 20


@pytest.mark.slow
def test_two_thousand_cuts_lose_and_double_nothing(server: LiveServer) -> None:
    num_cuts, seed = 0, 1000
    while num_cuts < 2000:
        num_cuts += read_through_cuts(server.port, seed, count=8)
        seed += 1


def test_the_async_client_does_the_same(server: LiveServer) -> None:
    async def scenario() -> str:
        async with AsyncClient(url, retry=QUICK) as client:
            return "".join([text async for text in client.text(HELLO)])

    with cutting_proxy(server.port, Cuts(random.Random(1), 6)) as url:
        assert asyncio.run(scenario()) == TEXT


def test_a_position_resumes_in_another_client(server: LiveServer) -> None:
    position = Position()
    with Client(server.url) as client:
        events = client.events(HELLO, position)
        head = [next(events).text for _ in range(10)]
        events.close()
    with Client(server.url) as client:
        rest = [event.text for event in client.events(HELLO, position)]
    assert "".join(head + rest) == TEXT


def test_stopping_is_a_verb_and_may_be_said_twice() -> None:
    service = ScriptedService(PIECES, hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, Client(server.url) as client:
        position = Position()
        events = client.events(HELLO, position, stream_options={"events": True})
        head = [next(events).text for _ in range(2)]
        client.stop(position.stream_id)
        client.stop(position.stream_id)
        rest = list(events)
        assert rest[-1].name == "end"
        assert rest[-1].data["status"] == "cancelled"
        assert TEXT.startswith("".join([*head, *(event.text for event in rest)]))


def test_what_the_server_refuses_is_told_and_not_tried_again(server: LiveServer) -> None:
    waits: list[float] = []
    with Client(server.url, sleep=waits.append) as client:
        with pytest.raises(StreamBrokenError, match="temperature") as refused:
            list(client.text(HELLO, temperature=9))
        assert (refused.value.status, refused.value.error_code, waits) == (400, "invalid_request", [])
        with pytest.raises(StreamBrokenError) as unknown:
            list(client.events(HELLO, Position(stream_id="stream-none")))
        assert (unknown.value.status, unknown.value.error_code) == (404, "stream_not_found")


def test_a_failure_in_band_is_raised() -> None:
    service = ScriptedService(PIECES, fail_at=2, warm_up_passes=True)
    failure = pytest.raises(StreamBrokenError, match="script says so")
    with live_server(lambda: service) as server, Client(server.url) as client, failure:
        list(client.text(HELLO))


def test_a_server_that_never_answers_is_given_up() -> None:
    waits: list[float] = []
    failure = pytest.raises(StreamBrokenError, match="connection was lost")
    with Client("http://127.0.0.1:9", retry=RetryPolicy(max_tries=4), sleep=waits.append) as client, failure:
        list(client.text(HELLO))
    assert len(waits) == 3


def test_waits_grow_with_jitter_and_begin_anew_after_an_event() -> None:
    backoff = Backoff(RetryPolicy(max_tries=8, base_s=1, max_wait_s=5), rng=random.Random(0))
    waits = [backoff.next_wait_s() for _ in range(7)]
    assert all(wait is not None and wait <= most for wait, most in zip(waits, (1, 2, 4, 5, 5, 5, 5), strict=True))
    assert len(set(waits)) == 7
    assert backoff.next_wait_s() is None
    backoff.note_progress()
    again = backoff.next_wait_s(at_least_s=3)
    assert again == 3
