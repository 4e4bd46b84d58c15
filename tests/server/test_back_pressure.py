"""A client that does not take what it is sent: little piles up, and the engine is told whose tokens are in no hurry."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from factories.live_server import DEADLINE_S, LiveServer, live_server
from factories.scripted_service import ScriptedService
from vivace.server.config import ServerConfig
from vivace.server.connection import BUFFER_BYTES
from vivace.server.transport import TransportConfig
from vivace.stream.network import NetworkConfig

WORDS = ["many words that take a while to read, one after another. "] * 3000


class WatchedService(ScriptedService):
    """Notes what it is told about readers."""

    knows_readers = True

    def __init__(self) -> None:
        super().__init__(WORDS, context_length=100_000, warm_up_passes=True)
        self.leads: dict[str, list[tuple[float, bool]]] = {}
        self.has_lead = threading.Event()
        self.wanted = lambda lead_s, is_all: lead_s > 60

    def note_reader(self, request_id: str, lead_s: float, *, is_all: bool = False) -> None:
        self.leads.setdefault(request_id, []).append((lead_s, is_all))
        if self.wanted(lead_s, is_all):
            self.has_lead.set()


@pytest.fixture
def watched() -> Iterator[tuple[WatchedService, LiveServer]]:
    service = WatchedService()
    with live_server(lambda: service) as server:
        yield service, server


def ask(port: int, receive_bytes: int = 4096, **options: Any) -> socket.socket:
    """A connection that has asked for a stream and takes nothing by itself."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(DEADLINE_S)
    client.connect(("127.0.0.1", port))
    fields = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": options}
    body = json.dumps(fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def test_a_client_that_takes_nothing_is_told_to_the_engine_and_costs_little(
    watched: tuple[WatchedService, LiveServer],
) -> None:
    service, server = watched
    with ask(server.port, on_disconnect="cancel") as client:
        assert service.has_lead.wait(DEADLINE_S)
        (connection,) = server.server.server_state.connections  # type: ignore[attr-defined]
        assert connection.transport.get_write_buffer_size() <= 2 * BUFFER_BYTES
        assert all(not is_all for _, is_all in service.leads[service.requests[-1].request_id])
        received = b""
        while b"[DONE]" not in received[-64:]:  # and when it reads again, all is there
            received += client.recv(1 << 16)
    assert received.count(b'"content":"many words') == len(WORDS)


def test_a_client_that_takes_everything_is_never_said_to_have_much_waiting(
    watched: tuple[WatchedService, LiveServer],
) -> None:
    service, server = watched
    with server.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], "stream": True}
        )
    assert answer.text.count('"content":"many words') == len(WORDS)
    assert not service.has_lead.is_set()


def test_what_a_client_says_it_has_left_to_read_is_all_there_is(
    watched: tuple[WatchedService, LiveServer],
) -> None:
    service, server = watched
    service.wanted = lambda lead_s, is_all: is_all and lead_s > 6
    service._hold_at = 5
    fields = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=fields) as response:
        path = f"/v1/streams/{response.headers['x-stream-id']}/ack"
        assert client.post(path, json={"buffer_s": 7.5, "buffer_utilisation": 0.25}).status_code == 200
        assert client.post(path, json={"buffer_utilisation": 1.5}).json()["error"]["param"] == "buffer_utilisation"
        assert service.has_lead.wait(DEADLINE_S)
        figures = client.get("/metrics").text
    assert "vivace_stream_client_buffer_utilisation_sum 0.25" in figures


def test_a_slow_connection_is_measured_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.server.reader_link.LOOK_S", 0.0)  # look after each send
    service, network = WatchedService(), NetworkConfig(poor_wait_s=0.005)
    config = ServerConfig(port=0, drain_s=1, transport=TransportConfig(network=network))
    with (
        live_server(lambda: service, config) as server,
        ask(server.port, events=True) as client,
        server.client() as other,
    ):
        assert service.has_lead.wait(DEADLINE_S)
        received = b""
        while b"[DONE]" not in received[-64:]:
            received += client.recv(1 << 16)
        figures = dict(line.rsplit(" ", 1) for line in other.get("/metrics").text.splitlines() if line[0] != "#")
    assert b'event: network\ndata: {"quality":"poor","send_every_s":0.25}' in received
    assert float(figures["vivace_stream_network_rtt_seconds_sum"]) > 0
    assert float(figures["vivace_stream_backlog_seconds_sum"]) > 60


def test_a_connection_of_which_nothing_is_known_is_served_all_the_same() -> None:
    pytest.importorskip("hypercorn")
    config = ServerConfig(port=0, drain_s=1, transport=TransportConfig(http2=True))
    with live_server(ScriptedService, config) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        fields = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        assert "[DONE]" in client.post("/v1/chat/completions", json=fields).text
