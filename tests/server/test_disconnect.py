"""A client that leaves ends the work it asked for."""

import json
import socket

import pytest

from factories.live_server import DEADLINE_S, LiveServer, live_server
from factories.scripted_service import ScriptedService


def open_request(server: LiveServer, path: str, fields: dict[str, object]) -> socket.socket:
    """Send a request and leave the connection open."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


REQUESTS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": ["hi", "ho"]},
}


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hold_at", [0, 3])
def test_leaving_cancels_in_the_engine(path: str, stream: bool, hold_at: int) -> None:
    service = ScriptedService(hold_at=hold_at, warm_up_passes=True)
    with live_server(lambda: service) as server:
        connection = open_request(server, path, {**REQUESTS[path], "stream": stream})
        assert service.held.wait(DEADLINE_S)
        assert not service.cancelled.is_set()
        connection.close()
        assert service.cancelled.wait(DEADLINE_S)


def test_leaving_in_the_middle_of_the_body_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with live_server(ScriptedService) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
        connection.close()
        with server.client() as client:
            assert client.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


def test_a_stream_that_shutdown_cuts_says_so_in_band() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        connection = open_request(server, "/v1/chat/completions", {**REQUESTS["/v1/chat/completions"], "stream": True})
        assert service.held.wait(DEADLINE_S)
        server.server.stop()
        received = b""
        while piece := connection.recv(65536):
            received += piece
        connection.close()
    assert b'"error":{"message":"The answer was ended by the server' in received
    assert received.count(b"data: [DONE]") == 1
    assert service.closed.is_set()
