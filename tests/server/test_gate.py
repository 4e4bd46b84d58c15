"""Who may use the server: API key, origins, request ids."""

import logging
from collections.abc import Iterator

import httpx
import pytest

from factories.live_server import LiveServer, live_server
from factories.scripted_service import ScriptedService
from vivace.server.config import ServerConfig

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def keyed_client() -> Iterator[httpx.Client]:
    config = ServerConfig(port=0, api_key="sesam", cors_origins=("https://ours.example",))
    with live_server(ScriptedService, config) as server, server.client() as client:
        yield client


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic sesam", "sesam", "Bearer sésam"])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize", "/v1/embeddings"])
def test_the_api_asks_for_the_key(keyed_client: httpx.Client, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode()}
    response = keyed_client.post(path, json=HELLO, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_right_key_opens(keyed_client: httpx.Client) -> None:
    assert keyed_client.post(CHAT, json=HELLO, headers={"authorization": "Bearer sesam"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/web/app.js"])
def test_page_and_probes_need_no_key(keyed_client: httpx.Client, path: str) -> None:
    assert keyed_client.get(path).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_others_may_not_write(client: httpx.Client, origin: str) -> None:
    response = client.post(CHAT, json=HELLO, headers={"origin": origin, "content-type": "text/plain"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


def test_the_own_page_may_write(client: httpx.Client) -> None:
    origin = str(client.base_url).rstrip("/")
    assert client.post(CHAT, json=HELLO, headers={"origin": origin}).status_code == 200


def test_allowed_origins_may_write_and_read_even_errors(keyed_client: httpx.Client) -> None:
    origin = {"origin": "https://ours.example"}
    preflight = keyed_client.options(
        CHAT,
        headers={**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"},
    )
    assert preflight.status_code == 200
    refused = keyed_client.post(CHAT, json=HELLO, headers=origin)
    assert refused.status_code == 401
    for response in (preflight, refused):
        assert response.headers["access-control-allow-origin"] == "https://ours.example"


def test_without_the_option_no_origin_may_read(client: httpx.Client) -> None:
    response = client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(("sent", "kept"), [("my-id.1:2", True), ("bad id", False), ("x" * 129, False), ("", False)])
def test_every_response_carries_a_request_id(client: httpx.Client, sent: str, kept: bool) -> None:
    response = client.get("/nowhere", headers={"x-request-id": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert response.headers["x-request-id"]


def test_ids_are_the_secret_where_there_is_no_key_and_no_log_has_one_whole(
    scripted_server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vivace"), scripted_server.client() as mine, scripted_server.client() as other:
        named = mine.post(CHAT, json={**HELLO, "stream": True}).headers["x-stream-id"]
        response = mine.post("/v1/responses", json={"input": "hello"}).json()["id"]
        assert other.get(f"/v1/streams/{named}").status_code == 200, "whoever has the name"
        assert other.get(f"/v1/responses/{response}").status_code == 200
        for guess in (named[:-1], f"{named}x", named.swapcase(), "", "stream-", "*"):
            assert other.get(f"/v1/streams/{guess}").status_code == 404
            assert other.post(f"/v1/streams/{guess}/cancel").status_code in (404, 405)
        assert other.get("/v1/streams").status_code == other.get("/v1/sessions").status_code - 1 == 404
        told = other.get("/metrics").text
    told += "".join(record.getMessage() for record in caplog.records if record.name.startswith("vivace"))
    assert named[:16] in told, "enough to find it again"
    for secret in (named, response):
        assert secret not in told and len(secret) > 36
