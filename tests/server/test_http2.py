"""Streams over HTTP/2, read by a real HTTP/2 client, in clear text and over TLS."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from factories.live_server import DEADLINE_S, LiveServer, live_server, read_events, read_numbered
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server import http2
from vivace.server.config import ServerConfig
from vivace.server.run import check_transport
from vivace.server.transport import TransportConfig
from vivace.types.errors import ConfigError, MissingExtraError

pytest.importorskip("hypercorn", reason="hypercorn is the extra http2")
pytest.importorskip("h2", reason="httpx needs h2 to speak HTTP/2")
trustme = pytest.importorskip("trustme", reason="trustme is a development dependency")

TEXT = "".join(SCRIPT)
PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(ScriptedService, ServerConfig(port=0, drain_s=1, transport=TransportConfig(http2=True))) as live:
        yield live


def clear_text(server: LiveServer) -> httpx.Client:
    """A client that speaks nothing but HTTP/2, and knows that the server does."""
    return server.client(http1=False, http2=True)


def text_of(payloads: list[object]) -> str:
    chunks = [payload for payload in payloads if isinstance(payload, dict) and payload.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_a_stream_over_http2_is_that_of_http1(server: LiveServer) -> None:
    with clear_text(server) as newer, server.client() as older:
        whole = newer.post(PATH, json=ASK)
        assert whole.http_version == "HTTP/2"
        assert text_of(read_events(whole)) == TEXT
        again = older.get(f"/v1/streams/{whole.headers['x-stream-id']}")
        assert (again.http_version, again.content) == ("HTTP/1.1", whole.content)


def test_a_stream_is_resumed_over_http2(server: LiveServer) -> None:
    with clear_text(server) as client:
        whole = client.post(PATH, json=ASK)
        rest = client.get(f"/v1/streams/{whole.headers['x-stream-id']}", headers={"last-event-id": "4"})
        assert rest.content == b"\n\n".join(whole.content.split(b"\n\n")[4:])


def test_many_streams_share_one_connection(server: LiveServer) -> None:
    with clear_text(server) as client:
        opened = [client.stream("POST", PATH, json=ASK) for _ in range(16)]
        responses = [stream.__enter__() for stream in opened]
        addresses = {response.extensions["network_stream"].get_extra_info("client_addr") for response in responses}
        bodies = [response.read().decode() for response in responses]
        for stream in opened:
            stream.__exit__(None, None, None)
    assert len(addresses) == 1
    assert all(text_of([payload for _, payload in read_numbered(body)]) == TEXT for body in bodies)


def test_events_come_one_by_one_and_a_reader_that_leaves_cancels() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    config = ServerConfig(port=0, drain_s=1, transport=TransportConfig(http2=True))
    body = ""
    with live_server(lambda: service, config) as live:
        with clear_text(live) as client, client.stream("POST", PATH, json=ASK) as response:
            for piece in response.iter_text():
                body += piece
                if "wor" in body:
                    break
            assert service.held.wait(DEADLINE_S)
            assert not service.cancelled.is_set()
        assert service.cancelled.wait(DEADLINE_S)


def test_shutdown_drains_and_then_tells_in_band() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    config = ServerConfig(port=0, drain_s=0, transport=TransportConfig(http2=True))
    with live_server(lambda: service, config) as live, live.client() as client:
        asked = client.stream("POST", PATH, json=ASK)
        with asked as response:
            assert service.held.wait(DEADLINE_S)
            live.server.stop()
            body = response.read().decode()
    assert '"error":{"message":"The answer was ended by the server' in body
    assert service.closed.is_set()


@pytest.mark.parametrize("with_http2", [False, True])
def test_tls_with_a_certificate_of_ones_own(tmp_path: Path, with_http2: bool) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    config = ServerConfig(port=0, drain_s=1, transport=TransportConfig(with_http2, certificate, key))
    check_transport(config.transport)
    with live_server(ScriptedService, config) as live, live.client(http2=True, verify=trusting) as client:
        assert live.url.startswith("https://")
        response = client.post(PATH, json=ASK)
    assert response.http_version == ("HTTP/2" if with_http2 else "HTTP/1.1")
    assert text_of(read_events(response)) == TEXT


def test_a_certificate_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match="cannot be used"):
            check_transport(TransportConfig(certificate=path))


def test_a_missing_extra_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vivace\[http2\]'"):
        check_transport(TransportConfig(http2=True))
