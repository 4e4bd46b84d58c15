"""The safety filter over a real socket: nothing it forbids leaves, whole or streamed, at either endpoint."""

from collections.abc import Iterator

import httpx
import pytest

from factories.live_server import live_server, read_events
from factories.scripted_service import ScriptedService
from vivace.server.config import ServerConfig
from vivace.stream.safety.screen import SafetyConfig

SCRIPT = ("My key", " is s", "esa", "me. ", "Bye", ".")
TERMS = ("sesame", "芝麻")
ENDPOINTS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello", "max_tokens": 16},
}


def server_config(action: str) -> ServerConfig:
    return ServerConfig(port=0, drain_s=1, safety=SafetyConfig(TERMS, action=action, check_input=True))


@pytest.fixture(scope="module", params=["stop", "mask", "replace"])
def filtered(request: pytest.FixtureRequest) -> Iterator[tuple[str, httpx.Client]]:
    with (
        live_server(lambda: ScriptedService(SCRIPT), server_config(request.param)) as server,
        server.client() as client,
    ):
        yield request.param, client


SHOWN = {
    "stop": ("My key is ", "content_filter"),
    "mask": ("My key is ******. Bye.", "stop"),
    "replace": ("My key is [removed]. Bye.", "stop"),
}


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_forbidden_leaves(filtered: tuple[str, httpx.Client], path: str, stream: bool) -> None:
    action, client = filtered
    response = client.post(path, json={**ENDPOINTS[path], "stream": stream})
    assert response.status_code == 200
    assert "sesa" not in response.text and "esame" not in response.text
    chunks = read_events(response)[:-1] if stream else [response.json()]
    choices = [chunk["choices"][0] for chunk in chunks]
    bodies = [choice.get("delta") or choice.get("message") or choice for choice in choices]
    text = "".join(body.get("content") or body.get("text") or "" for body in bodies)
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert (text, reasons) == (SHOWN[action][0], [SHOWN[action][1]])


@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_comes_in_is_checked_too(filtered: tuple[str, httpx.Client], path: str) -> None:
    body = {"messages": [{"role": "user", "content": "Say SESAME"}]} if "chat" in path else {"prompt": "Say SESAME"}
    response = filtered[1].post(path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_logprobs_would_tell_and_are_refused(filtered: tuple[str, httpx.Client], path: str) -> None:
    fields = {"logprobs": True} if "chat" in path else {"logprobs": 0}
    response = filtered[1].post(path, json={**ENDPOINTS[path], **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "logprobs")


def test_an_answer_that_the_filter_ends_is_ended_in_the_engine_too() -> None:
    service = ScriptedService(SCRIPT, hold_at=5, warm_up_passes=True)
    fields = {**ENDPOINTS["/v1/chat/completions"], "stream": True}
    fields["stream_options"] = {"events": True, "include_usage": True}
    with live_server(lambda: service, server_config("stop")) as server, server.client() as client:
        *_, usage, end, done = read_events(client.post("/v1/chat/completions", json=fields))
    assert service.cancelled.is_set()
    assert (done, end["status"], end["reasons"]) == ("[DONE]", "incomplete", ["content_filter"])
    assert usage["usage"]["completion_tokens"] in (4, 5)
