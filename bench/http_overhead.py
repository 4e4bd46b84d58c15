"""What serving costs beside the model: CPU time of HTTP, logs and sending, for 16 streams, by server library.

python bench/http_overhead.py [--seconds 8] [--rate 20]

A stand-in for the engine ticks in a thread of its own and gives every stream one token a tick, as a step does. The
server runs in a process of its own whose CPU time is read; its readers are another process. The overhead is that CPU
time over the time of all cores: what the model cannot have.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from factories.scripted_service import ScriptedService
from vivace.engine.mailbox import Mailbox
from vivace.server.app import build_app
from vivace.server.config import ServerConfig
from vivace.server.loading import LoadingModel
from vivace.server.run import SignalledServer, bind, build_server
from vivace.server.transport import TransportConfig
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.events import EngineEvent
from vivace.types.request import GenerationRequest

NUM_STREAMS = 16
WARM_UP_S = 1.0


class TickingService(ScriptedService):
    """Every stream gets a token at each tick of one thread."""

    def __init__(self, rate: float) -> None:
        super().__init__(warm_up_passes=True, context_length=10**6)
        self._tick_s = 1.0 / rate
        self._sinks: list[Callable[[Sequence[EngineEvent]], None]] = []
        self._mailbox: Mailbox | None = None
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due += self._tick_s
            time.sleep(max(0.0, due - time.monotonic()))
            for sink in tuple(self._sinks):
                sink(())

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[AnswerChunk, None]:
        """A token a tick, for ever."""
        arrived = asyncio.Queue[Sequence[EngineEvent]]()
        self._mailbox = self._mailbox or Mailbox(asyncio.get_running_loop())
        sink = partial(self._mailbox.post, arrived)
        self._sinks.append(sink)
        try:
            while request.request_id not in self.cancelled_ids:
                await arrived.get()
                yield AnswerChunk(0, " word", (1,))
            yield AnswerChunk(0, "", finish_reason="cancelled", usage=Usage(1, 1))
        finally:
            self._sinks.remove(sink)


def run_uvicorn(listener: socket.socket, model: LoadingModel, loop: str, http: str) -> None:
    """The default server, with a choice of event loop and parser."""
    server = SignalledServer(ServerConfig(), model)
    server.config.loop, server.config.http = loop, http
    server.run([listener])


def run_hypercorn(listener: socket.socket, model: LoadingModel) -> None:
    """The server of --http2."""
    build_server(ServerConfig(transport=TransportConfig(http2=True)), model).run([listener])


def run_granian(listener: socket.socket, model: LoadingModel) -> None:
    """Granian, embedded."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    port = listener.getsockname()[1]
    listener.close()
    app = build_app(ServerConfig(), model)
    asyncio.run(Server(app, port=port, interface=Interfaces.ASGINL).serve())


SERVERS: dict[str, tuple[Callable[..., None], tuple[str, ...], bool]] = {
    "uvicorn, asyncio, h11": (run_uvicorn, ("asyncio", "h11"), False),
    "uvicorn, uvloop, httptools": (run_uvicorn, ("uvloop", "httptools"), False),
    "hypercorn, HTTP/1.1": (run_hypercorn, (), False),
    "hypercorn, HTTP/2": (run_hypercorn, (), True),
    "granian, HTTP/1.1": (run_granian, (), False),
    "granian, HTTP/2": (run_granian, (), True),
}
"""Name: what runs it, with which arguments, and whether its readers speak HTTP/2."""


def serve(name: str, port_out: Any, rate: float) -> None:
    """Body of the server's process."""
    run, arguments, _ = SERVERS[name]
    listener = bind("127.0.0.1", 0)
    model = LoadingModel(lambda: TickingService(rate))  # type: ignore[arg-type,return-value]
    model.start()
    port_out.send(listener.getsockname()[1])
    run(listener, model, *arguments)


def read(port: int, with_http2: bool, counts_out: Any) -> None:
    """Body of the readers' process: follows all streams and tells how many events came whenever it is asked."""

    async def follow(client: httpx.AsyncClient, count: list[int]) -> None:
        body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for piece in response.aiter_bytes():
                count[0] += piece.count(b"\n\n")

    async def scenario() -> None:
        count = [0]
        options = {"http1": not with_http2, "http2": with_http2, "timeout": None, "trust_env": False}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", **options) as client:
            while True:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            tasks = [asyncio.create_task(follow(client, count)) for _ in range(NUM_STREAMS)]
            while await asyncio.to_thread(counts_out.recv):
                counts_out.send(count[0])
            for task in tasks:
                task.cancel()

    asyncio.run(scenario())


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, seconds: float, rate: float) -> tuple[float, float]:
    """CPU seconds of the server, and events, in one second of steady streaming."""
    context = multiprocessing.get_context("spawn")
    port_in, port_out = context.Pipe()
    server = context.Process(target=serve, args=(name, port_out, rate), daemon=True)
    server.start()
    here, there = context.Pipe()
    readers = context.Process(target=read, args=(port_in.recv(), SERVERS[name][2], there), daemon=True)
    readers.start()

    def look() -> tuple[float, float, int]:
        here.send(True)
        while not here.poll(0.2):
            if not server.is_alive():  # its library is not installed: it has printed so
                readers.kill()
                raise ConnectionError("the server ended at once")
        return time.perf_counter(), cpu_s(server.pid or 0), int(here.recv())

    while look()[2] < NUM_STREAMS:
        time.sleep(0.05)
    time.sleep(WARM_UP_S)
    before = look()
    time.sleep(seconds)
    after = look()
    for process in (readers, server):
        process.kill()
        process.join()
    took_s = after[0] - before[0]
    return (after[1] - before[1]) / took_s, (after[2] - before[2]) / took_s


def main() -> None:
    """Print a table; the figures of each server are medians of its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, each run")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens a second and stream")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(SERVERS))
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"{NUM_STREAMS} streams, {arguments.rate:g} tokens/s each, {cores} cores")
    for name in arguments.only:
        try:
            runs = [measure(name, arguments.seconds, arguments.rate) for _ in range(arguments.runs)]
        except (ImportError, EOFError, ConnectionError) as error:
            print(f"{name:28} not measured: {error!r}")
            continue
        cpu, events = median(run[0] for run in runs), median(run[1] for run in runs)
        share = 100 * cpu / cores
        print(f"{name:28} {events:7.0f} events/s {1e6 * cpu / events:7.0f} us/event {share:6.2f} % of the machine")


if __name__ == "__main__":
    main()
