"""The WebSocket endpoint, spoken to with the `websockets` package."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from factories.live_server import DEADLINE_S, LiveServer, live_server, read_numbered
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server.config import ServerConfig

TEXT = "".join(SCRIPT)
BODY = {"messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def connected(server: LiveServer, **options: Any) -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + "v1/ws"
    with connect(url, open_timeout=DEADLINE_S, proxy=None, **options) as socket:
        yield socket


def say(socket: ClientConnection, kind: str, tag: str = "a", **fields: object) -> None:
    socket.send(json.dumps({"type": kind, "id": tag, **fields}))


def hear(socket: ClientConnection) -> dict[str, Any]:
    heard: dict[str, Any] = json.loads(socket.recv(DEADLINE_S))
    return heard


def hear_to_end(socket: ClientConnection, tag: str = "a") -> list[dict[str, Any]]:
    heard = []
    while not heard or (heard[-1]["type"], heard[-1]["id"]) != ("done", tag):
        heard.append(hear(socket))
    return heard


def text_of(heard: list[dict[str, Any]], tag: str = "a") -> str:
    events = [message["data"] for message in heard if message["type"] == "event" and message["id"] == tag]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events if event.get("choices"))


def test_an_answer_is_sent_event_by_event(scripted_server: LiveServer) -> None:
    with connected(scripted_server) as socket:
        say(socket, "send", body=BODY)
        opened, *events, done = hear_to_end(socket)
    assert (opened["type"], opened["id"], opened["starting_after"]) == ("stream", "a", 0)
    assert [event["number"] for event in events] == list(range(1, len(SCRIPT) + 3))
    assert (text_of(events), done) == (TEXT, {"type": "done", "id": "a", "status": "completed"})


def test_the_events_are_those_of_server_sent_events(scripted_server: LiveServer) -> None:
    with scripted_server.client() as http, connected(scripted_server) as socket:
        whole = http.post("/v1/chat/completions", json={**BODY, "stream": True})
        say(socket, "resume", stream_id=whole.headers["x-stream-id"], starting_after=3)
        heard = hear_to_end(socket)
    expected = [(number, data) for number, data in read_numbered(whole.text) if number is not None and number > 3]
    assert [(event["number"], event["data"]) for event in heard[1:-1]] == expected


def test_several_answers_share_a_connection(scripted_server: LiveServer) -> None:
    with connected(scripted_server) as socket:
        for tag in "abc":
            say(socket, "send", tag, body=BODY)
        heard: list[dict[str, Any]] = []
        while sum(message["type"] == "done" for message in heard) < 3:
            heard.append(hear(socket))
    assert [text_of(heard, tag) for tag in "abc"] == [TEXT] * 3


def test_another_connection_goes_on_where_one_was_lost() -> None:
    service = ScriptedService(hold_at=4, warm_up_passes=True)
    with live_server(lambda: service) as server:
        with connected(server) as socket:
            say(socket, "send", body={**BODY, "stream_options": {"on_disconnect": "keep"}})
            opened = hear(socket)
            head = [hear(socket) for _ in range(4)]
        assert not service.cancelled.is_set()
        service.release()
        with connected(server) as socket:
            say(socket, "resume", "b", stream_id=opened["stream_id"], starting_after=head[-1]["number"])
            rest = hear_to_end(socket, "b")
    assert text_of(head) + text_of(rest, "b") == TEXT


@pytest.mark.parametrize("by_stream", [False, True])
def test_stopping_keeps_what_there_is(by_stream: bool) -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, connected(server) as socket:
        say(socket, "send", body=BODY)
        opened = hear(socket)
        assert service.held.wait(DEADLINE_S)
        say(socket, "stop", stream_id=opened["stream_id"] if by_stream else "")
        heard = hear_to_end(socket)
    assert (text_of(heard), heard[-1]["status"]) == ("".join(SCRIPT[:3]), "cancelled")


def test_closing_the_connection_cancels_unless_asked_otherwise() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        with connected(server) as socket:
            say(socket, "send", body=BODY)
            hear(socket)
            assert service.held.wait(DEADLINE_S)
        assert service.cancelled.wait(DEADLINE_S)


def test_leaving_an_answer_keeps_the_connection() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, connected(server) as socket:
        say(socket, "send", body={**BODY, "stream_options": {"on_disconnect": "keep"}})
        opened = hear(socket)
        assert service.held.wait(DEADLINE_S)
        say(socket, "leave")
        assert hear_to_end(socket)[-1]["status"] == "running"
        say(socket, "ping", "p")
        assert hear(socket) == {"type": "pong", "id": "p"}
        service.release()
        say(socket, "resume", stream_id=opened["stream_id"])
        assert text_of(hear_to_end(socket)) == TEXT


def test_acks_and_paces_reach_the_reader() -> None:
    service = ScriptedService(["word " * 5000] * 4, hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as http, connected(server) as socket:
        say(socket, "send", body={**BODY, "stream_options": {"pace": "reader"}})
        hear(socket)
        events = [hear(socket) for _ in range(4)]
        say(socket, "ack", number=events[-1]["number"], buffer_s=0.5, rtt_s=0.02, stalls=1)
        say(socket, "pace", pace="off")
        say(socket, "pace", pace="reader", speed=2.0)
        service.release()
        assert text_of([*events, *hear_to_end(socket)]) == "word " * 20000
        metrics = http.get("/metrics").text
    assert "vivace_stream_client_buffer_seconds_sum 0.5" in metrics
    assert "vivace_stream_client_stalls_total 1.0" in metrics


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", "invalid_request"),
        ("[]", "invalid_request"),
        ('{"type": "fly"}', "invalid_request"),
        ('{"type": "send", "id": "a", "boddy": {}}', "invalid_request"),
        ('{"type": "send", "id": "", "body": {"messages": []}}', "invalid_request"),
        ('{"type": "send", "id": "a", "body": {"messages": []}}', "invalid_request"),
        ('{"type": "send", "id": "a", "body": {"messages": [], "tools": [1]}}', "invalid_request"),
        ('{"type": "send", "id": "a", "body": {"model": "x", "messages": []}}', "model_not_found"),
        ('{"type": "resume", "id": "a", "stream_id": "stream-none"}', "stream_not_found"),
        ('{"type": "stop", "id": "a"}', "invalid_request"),
        ('{"type": "ack", "id": "a", "number": 1}', "invalid_request"),
        ('{"type": "pace", "id": "a", "pace": "off"}', "invalid_request"),
        ('{"type": "leave", "id": "a"}', "invalid_request"),
        ("[" * 100_000, "invalid_request"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_connection_goes_on(
    scripted_server: LiveServer, message: str, code: str
) -> None:
    with connected(scripted_server) as socket:
        socket.send(message)
        heard = hear(socket)
        assert (heard["type"], heard["error"]["code"]) == ("error", code)
        say(socket, "send", body=BODY)
        assert text_of(hear_to_end(socket)) == TEXT


def test_a_failed_answer_tells_its_error_and_its_end() -> None:
    with live_server(lambda: ScriptedService(fail_at=0, warm_up_passes=True)) as server, connected(server) as socket:
        say(socket, "send", body=BODY)
        heard = hear_to_end(socket)
    assert heard[-2]["error"]["message"] == "The script says so."
    assert heard[-1]["status"] == "failed"


def test_a_key_is_asked_for_and_may_come_as_a_subprotocol() -> None:
    key = base64.urlsafe_b64encode("sesam öffne".encode()).decode().rstrip("=")
    with live_server(ScriptedService, ServerConfig(port=0, drain_s=1, api_key="sesam öffne")) as server:
        with connected(server, subprotocols=["vivace", f"vivace.key.{key}"]) as socket:
            assert socket.subprotocol == "vivace"
            say(socket, "send", body=BODY)
            assert text_of(hear_to_end(socket)) == TEXT
        for options in ({}, {"subprotocols": ["vivace", "vivace.key.b29wcw"]}, {"subprotocols": ["vivace.key.*"]}):
            with pytest.raises(InvalidStatus) as refused, connected(server, **options):
                pass
            assert refused.value.response.status_code == 401
            assert b"invalid_api_key" in refused.value.response.body


def test_a_page_of_another_origin_may_not_open_a_socket(scripted_server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(scripted_server, origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    own = scripted_server.url.rstrip("/")
    with connected(scripted_server, origin=own) as socket:
        say(socket, "ping")
        assert hear(socket)["type"] == "pong"


def test_shutdown_closes_sockets_with_a_code_that_says_so() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, connected(server) as socket:
        say(socket, "send", body={**BODY, "stream_options": {"on_disconnect": "keep"}})
        hear(socket)
        assert service.held.wait(DEADLINE_S)
        server.server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                hear(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012  # service restart
