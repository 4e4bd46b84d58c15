"""A real uvicorn server on a loopback port, in a thread of the test process."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from vivace.server.config import ServerConfig
from vivace.server.loading import LoadingModel
from vivace.server.run import Server, bind, build_server, page_url

DEADLINE_S = 30


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that is up."""

    url: str
    model: LoadingModel
    server: Server

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S, trust_env=False, **options)


@contextmanager
def live_server(
    load: Callable[[], Any], config: ServerConfig | None = None, *, wait: bool = True
) -> Iterator[LiveServer]:
    """Serve what `load` returns; with `wait`, from the moment the model has settled."""
    config = config or ServerConfig(port=0, drain_s=1)
    settled = threading.Event()
    model = LoadingModel(load, lambda _: settled.set())
    listener = bind(config.host, config.port)
    server = build_server(config, model)
    thread = threading.Thread(target=server.run, args=([listener],), name="live-server")
    thread.start()
    model.start()
    try:
        if wait:
            assert settled.wait(DEADLINE_S)
        yield LiveServer(page_url(listener, config.transport.scheme), model, server)
    finally:
        server.stop()
        thread.join(DEADLINE_S)
        listener.close()
        model.close()
        model.join(DEADLINE_S)
        assert not thread.is_alive()


def read_events(response: httpx.Response) -> list[Any]:
    """The objects of an SSE body; the terminator is told as "[DONE]"."""
    return [payload for _, payload in read_numbered(response.text)]


def read_numbered(body: str) -> list[tuple[int | None, Any]]:
    """The objects of an SSE body with their ids; a tail that was cut off in the middle of an event is left out."""
    events: list[tuple[int | None, Any]] = []
    for block in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            assert fields.keys() <= {"id", "event", "data"}
            number = int(fields["id"]) if "id" in fields else None
            events.append((number, fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])))
    return events
