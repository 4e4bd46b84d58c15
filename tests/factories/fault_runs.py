"""Answers read over a network that breaks, by clients that come back: what they got, and how often it broke."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets
from prometheus_client.parser import text_string_to_metric_families

from factories.faulty_proxy import FAULTS, Fault
from vivace.client import AsyncClient, RetryPolicy, StreamBrokenError

HELLO = [{"role": "user", "content": "hello"}]
PIECES = tuple(f"{number} 你好👩‍👩‍👧, " for number in range(24))
TEXT = "".join(PIECES)
SILENCE_S = 0.4
"""A reader that hears nothing for so long makes a new connection. Servers are silent for longer only on bad days."""
QUICK = RetryPolicy(max_tries=20, base_s=0.002, max_wait_s=0.02)
STREAM_OPTIONS = {"on_disconnect": 60, "events": True, "hard_timeout_s": 3000}
"""A machine that stands still for a while ends no answer here."""
NUM_BYTES = 9000
"""About what an answer of PIECES takes on the wire, with all events."""


class FaultPlan:
    """The fault of each connection: kinds in turn, at random places, a third of them on a slow network.

    Args:
        rng: for the places.
        share: of the connections that have a fault at all.
        kinds: rows of FAULTS.
    """

    def __init__(self, rng: random.Random, share: float = 1.0, kinds: Sequence[str] = tuple(FAULTS)) -> None:
        self._rng, self._share = rng, share
        self._kinds = itertools.cycle(kinds)

    def __call__(self) -> Fault:
        delay_s = self._rng.choice((0.0, 0.0, 0.001))
        if self._rng.random() >= self._share:
            return Fault(delay_s=delay_s)
        return Fault(next(self._kinds), self._rng.randint(0, NUM_BYTES), delay_s)


@dataclass(slots=True)
class Report:
    """What many readers saw.

    Attributes:
        num_answers: asked for.
        num_interrupted: answers that a reader did not get to their end: it gave up, or what it had was not the text.
        num_lost, num_doubled: characters.
        ends: how many terminal events an answer had, and how often.
    """

    num_answers: int = 0
    num_interrupted: int = 0
    num_lost: int = 0
    num_doubled: int = 0
    ends: Counter[int] = field(default_factory=Counter)

    def note(self, text: str, num_ends: int) -> None:
        """One answer was read."""
        self.num_answers += 1
        self.num_interrupted += (text, num_ends) != (TEXT, 1)
        self.num_lost += max(0, len(TEXT) - len(text))
        self.num_doubled += max(0, len(text) - len(TEXT))
        self.ends[num_ends] += 1


ReadAnswer = Callable[[str, AsyncClient], Awaitable[tuple[str, int]]]
"""Takes the URL of a server and a client of it; the text of one answer, and how many terminal events it had."""


async def read_over_sse(_: str, client: AsyncClient) -> tuple[str, int]:
    """One answer, as the Python client reads it."""
    text, num_ends = "", 0
    try:
        async for event in client.events(HELLO, stream_options=STREAM_OPTIONS):
            text += event.text
            num_ends += event.name == "end"
    except StreamBrokenError:
        pass
    return text, num_ends


async def read_over_socket(url: str, _: AsyncClient) -> tuple[str, int]:
    """One answer over WebSockets, by a reader that makes a new one when the old one breaks or falls silent."""
    reader = SocketReader()
    for _ in range(QUICK.max_tries):
        try:
            async with asyncio.timeout(10 * SILENCE_S):
                await reader.read_on(url.replace("http", "ws", 1) + "/v1/ws")
        except (OSError, TimeoutError, websockets.WebSocketException):
            continue
        break
    return reader.text, reader.num_ends


@dataclass(slots=True)
class SocketReader:
    """Where one reader is in one answer."""

    stream_id: str = ""
    last_number: int = 0
    text: str = ""
    num_ends: int = 0

    async def read_on(self, url: str) -> None:
        """Read over one connection, to the end of the answer.

        Raises:
            OSError, TimeoutError, WebSocketException: it broke before.
        """
        ask = {"type": "send", "id": "a", "body": {"messages": HELLO, "stream": True, "stream_options": STREAM_OPTIONS}}
        resume = {"type": "resume", "id": "a", "stream_id": self.stream_id, "starting_after": self.last_number}
        connecting = websockets.connect(
            url, open_timeout=SILENCE_S, close_timeout=0.01, ping_interval=None, compression=None, proxy=None
        )
        async with connecting as socket:
            await socket.send(json.dumps(resume if self.stream_id else ask))
            while True:
                message = json.loads(await asyncio.wait_for(socket.recv(), SILENCE_S))
                if message["type"] == "done":
                    return
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "stream":
            self.stream_id = message["stream_id"]
        assert message["type"] in ("stream", "event"), message
        if message["type"] == "event":
            assert message["number"] == self.last_number + 1
            self.last_number = message["number"]
            self.num_ends += message.get("name") == "end"
            choices = message["data"].get("choices") or () if not message.get("name") else ()
            self.text += "".join(choice["delta"].get("content") or "" for choice in choices)


async def read_many(url: str, read: ReadAnswer, report: Report, wanted: Callable[[], bool], at_once: int = 8) -> None:
    """Read answers, some at once, as long as more are wanted."""

    async with AsyncClient(url, retry=QUICK, timeout_s=SILENCE_S) as client:

        async def one_after_the_other() -> None:
            while wanted():
                report.note(*await read(url, client))

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


READERS: dict[str, ReadAnswer] = {"server-sent events": read_over_sse, "WebSocket": read_over_socket}


def num_ended(url: str) -> tuple[int, int]:
    """How many terminal events a server has written, and how many streams run, once all of them have ended."""
    for _ in range(600):
        text = httpx.get(f"{url.rstrip('/')}/metrics", trust_env=False).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        ended = sum(sample.value for sample in samples if sample.name == "vivace_stream_ended_total")
        running = sum(sample.value for sample in samples if sample.name == "vivace_stream_running")
        if not running:
            break
    return int(ended), int(running)
