"""Hundreds of readers that read slowly or not at all, beside some that read fast, of a server in its own process."""

import asyncio
import json
import multiprocessing
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from factories.fault_runs import num_ended
from factories.live_server import live_server
from factories.stepped_service import SteppedService

HELD_BYTES = 4096
"""Receive buffer of a slow reader: what it does not read soon keeps the server from sending."""
DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who reads what.

    Args:
        num_slow: readers that take 64 bytes a second, or, every other one, nothing after the headers.
        num_fast: readers that take all there is, and are watched.
        num_tokens: of each answer, one a step.
        token_bytes: of the text of a token.
        step_s: time between two steps of the engine.
        slow_read_all: the slow ones read as the fast ones do: what their streams cost without being slow.
    """

    num_slow: int = 500
    num_fast: int = 16
    num_tokens: int = 150
    token_bytes: int = 2000
    step_s: float = 0.2
    slow_read_all: bool = False


@dataclass(slots=True)
class Sight:
    """What was seen.

    Attributes:
        base_bytes, peak_bytes: resident memory of the server before the first stream, and at most.
        gaps_s: of the fast readers: time between two of their events.
        late_s: of the engine's steps.
        ends: how many streams had how many terminal events, read again at the end.
        num_accepted, num_ended, num_running: as the server counted.
        fast_bytes: length of the text of each fast reader.
    """

    base_bytes: int = 0
    peak_bytes: int = 0
    gaps_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)
    num_lost: int = 0
    num_accepted: int = 0
    num_ended: int = 0
    num_running: int = 0
    fast_bytes: list[int] = field(default_factory=list)


def watch(crowd: Crowd) -> Sight:
    """Let the crowd read, and see what it does to the server and to its fast readers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, crowd), daemon=True)
    process.start()
    try:
        url = ours.recv()
        sight = asyncio.run(_Watch(crowd, url, process.pid or 0).run())
        ours.send("how was it?")
        sight.late_s, sight.num_accepted = ours.recv()
    finally:
        process.join(DEADLINE_S)
        process.kill()
    return sight


def _serve(pipe: Connection, crowd: Crowd) -> None:
    service = SteppedService("x" * crowd.token_bytes, crowd.step_s)
    with live_server(lambda: service) as server:
        pipe.send(server.url.rstrip("/"))
        pipe.recv()
        pipe.send((service.late_s, len(service.requests)))


class _Watch:
    def __init__(self, crowd: Crowd, url: str, pid: int) -> None:
        self._crowd, self._url, self._pid = crowd, url, pid
        self._sight = Sight(base_bytes=_resident_bytes(pid))
        self._stream_ids: list[str] = []
        self._is_over = asyncio.Event()

    async def run(self) -> Sight:
        crowd, sight = self._crowd, self._sight
        watching = asyncio.ensure_future(self._watch_memory())
        others = (self._read_all() if crowd.slow_read_all else self._read_slowly(n % 2) for n in range(crowd.num_slow))
        slow = [asyncio.ensure_future(reading) for reading in others]
        await asyncio.gather(*(self._read_watched() for _ in range(crowd.num_fast)))
        sight.num_ended, sight.num_running = await asyncio.to_thread(num_ended, self._url)
        await asyncio.sleep(0)
        self._is_over.set()
        await asyncio.gather(*slow, watching)
        await self._count_ends()
        return sight

    async def _open(self, held_bytes: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection whose headers have been read."""
        url, connection = httpx.URL(self._url), socket.socket()
        if held_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, held_bytes)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=held_bytes or 2**20)
        options = {"on_disconnect": "keep", "events": True, "hard_timeout_s": 3000}
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": "hello"}],
                "stream": True,
                "max_tokens": self._crowd.num_tokens,
                "stream_options": options,
            }
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert status.endswith("200 OK"), status
        self._stream_ids += [line.split(": ")[1] for line in headers if line.lower().startswith("x-stream-id")]
        return reader, writer

    async def _read_slowly(self, reads_some: int) -> None:
        reader, writer = await self._open(HELD_BYTES)
        with suppress(OSError):
            while not self._is_over.is_set():
                if reads_some:
                    await reader.read(64)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), 1.0)
        writer.transport.abort()

    async def _read_all(self) -> None:
        """As fast as it comes, and nobody looks."""
        reader, writer = await self._open(None)
        tail = b""
        while b"[DONE]" not in tail and (piece := await reader.read(2**16)):
            tail = tail[-8:] + piece
        writer.close()

    async def _read_watched(self) -> None:
        reader, writer = await self._open(None)
        seen_s, num_bytes = time.monotonic(), 0
        async for line in reader:
            if line.startswith(b"data: [DONE]"):
                break
            if b"xxx" in line:
                now_s = time.monotonic()
                self._sight.gaps_s.append(now_s - seen_s)
                (choice,) = json.loads(line.removeprefix(b"data: "))["choices"]
                seen_s, num_bytes = now_s, num_bytes + len(choice["delta"]["content"])
        self._sight.fast_bytes.append(num_bytes)
        writer.close()

    async def _watch_memory(self) -> None:
        while not self._is_over.is_set():
            self._sight.peak_bytes = max(self._sight.peak_bytes, _resident_bytes(self._pid))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), 0.2)

    async def _count_ends(self) -> None:
        """Read every stream again, from the oldest event that is held."""
        left = list(self._stream_ids)
        async with httpx.AsyncClient(base_url=self._url, timeout=DEADLINE_S, trust_env=False) as client:

            async def count() -> None:
                while left:
                    stream_id = left.pop()
                    response = await client.get(f"/v1/streams/{stream_id}")
                    if response.status_code == 410:
                        self._sight.num_lost += 1
                        oldest = int(response.json()["error"]["message"].split("starting_after=")[1].split(",")[0])
                        response = await client.get(f"/v1/streams/{stream_id}", params={"starting_after": oldest})
                    self._sight.ends[response.content.count(b"event: end\n")] += 1

            await asyncio.gather(*(count() for _ in range(8)))


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
