"""A TCP proxy over which a network can be as bad as networks are: slow, cut, half closed, or silent.

A kind of fault is a row of FAULTS. Each connection has one, which happens when so many bytes of the answer have passed;
until then, and in kinds that leave the connection open also later, bytes pass in odd pieces, late where that is wanted.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

DEADLINE_S = 30
LINGER_S = 1.0
"""After a drop the server hears of the client's end this much later: packets that say so are lost, too."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection.

    Args:
        kind: a row of FAULTS, or "none".
        after_bytes: of the answer, which pass before it.
        delay_s: each piece may be late by up to so much, in both directions.
    """

    kind: str = "none"
    after_bytes: int = 0
    delay_s: float = 0.0


@dataclass(slots=True, eq=False)
class Link:
    """One connection: its two halves, and the task that brings what the client says to the server."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    upward: "asyncio.Task[None]"


async def _close(link: Link) -> None:
    """The client reads an end that nobody meant."""
    link.to_client.close()


async def _reset(link: Link) -> None:
    """As when a router forgets the connection."""
    connection = link.to_client.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.to_client.transport.abort()


async def _half_close_down(link: Link) -> None:
    """The client reads an end; the server can still be spoken to, and hears the client's own end."""
    link.to_client.write_eof()
    await link.upward


async def _drop(link: Link) -> None:
    """Nothing passes any more and nobody is told: no FIN, no RST."""
    await _end(link.upward)
    while await link.from_client.read(65536):
        pass
    await asyncio.sleep(LINGER_S)


async def _half_close_up(link: Link) -> None:
    """The server reads the end of the client, who still reads."""
    await _end(link.upward)
    link.to_server.write_eof()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


FAULTS: dict[str, Callable[[Link], Awaitable[None]]] = {
    "close": _close,
    "reset": _reset,
    "half close down": _half_close_down,
    "half close up": _half_close_up,
    "drop": _drop,
}
GOES_ON = {"half close up"}
"""Kinds after which the rest of the answer may still pass."""


@dataclass(slots=True)
class FaultyProxy:
    """A proxy to a local port. `next_fault` is asked for each connection; `happened` counts faults by kind."""

    port: int
    next_fault: Callable[[], Fault]
    happened: Counter[str] = field(default_factory=Counter)
    url: str = ""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    links: set[Link] = field(default_factory=set)

    async def relay(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        fault = self.next_fault()
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        upward = asyncio.ensure_future(self._upward(from_client, to_server, fault.delay_s))
        link = Link(from_client, to_client, from_server, to_server, upward)
        self.links.add(link)  # one that is silent is known to no selector, and would be collected as garbage
        try:
            with suppress(OSError, asyncio.CancelledError):  # cancelled when the proxy ends
                if await self._downward(link, fault):
                    self.happened[fault.kind] += 1
                    await FAULTS[fault.kind](link)
                    if fault.kind in GOES_ON:
                        await self._downward(link, Fault(delay_s=fault.delay_s))
        finally:
            self.links.discard(link)
            await _end(upward)
            for writer in (to_server, to_client):
                writer.close()

    async def _downward(self, link: Link, fault: Fault) -> bool:
        """Bring the answer to the client; whether the moment of the fault has come."""
        left = fault.after_bytes if fault.kind in FAULTS else None
        while left is None or left > 0:
            length = self.rng.randint(1, 300)
            piece = await link.from_server.read(length if left is None else min(length, left))
            if not piece:
                return False
            await self._be_late(fault.delay_s)
            link.to_client.write(piece)
            await link.to_client.drain()
            left = None if left is None else left - len(piece)
        return True

    async def _upward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                await self._be_late(delay_s)
                target.write(piece)
                await target.drain()
            target.write_eof()

    async def _be_late(self, delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(self.rng.uniform(0, delay_s))


@contextmanager
def faulty_proxy(port: int, next_fault: Callable[[], Fault]) -> Iterator[FaultyProxy]:
    """A proxy in a thread of its own, gone with all of its connections at the end."""
    proxy, ready, loop = FaultyProxy(port, next_fault), threading.Event(), asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.relay, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stopping.wait()
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="faulty-proxy")
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(DEADLINE_S)
        loop.close()
