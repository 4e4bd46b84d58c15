"""Regenerated answers over a real socket and engine: the same whole and streamed; checks read requests as well."""

import re
from collections.abc import Iterator

import httpx
import pytest

from factories.babbling_service import babbling_service
from factories.live_server import live_server, read_events
from vivace.server.config import ServerConfig
from vivace.stream.safety.checks import CheckConfig
from vivace.stream.safety.screen import SafetyConfig

ENDPOINTS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
}
CHECKS = (CheckConfig("classifier", "factories.classifiers:of_text", every="token"),)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    safety = SafetyConfig(("user", "你"), action="regenerate", checks=CHECKS, check_input=True)
    with (
        live_server(babbling_service, ServerConfig(port=0, drain_s=1, safety=safety)) as server,
        server.client() as http,
    ):
        yield http


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 4}])
def test_a_regenerated_answer_is_clean_and_the_same_whole_or_streamed(
    client: httpx.Client, path: str, sampling: dict[str, float]
) -> None:
    fields = {**ENDPOINTS[path], **sampling, "max_tokens": 120, "n": 2}
    streamed = client.post(path, json={**fields, "stream": True, "stream_options": {"events": True}})
    assert "event: rollback" in streamed.text
    choices = [event["choices"][0] for event in read_events(streamed) if isinstance(event, dict) and "choices" in event]
    whole = client.post(path, json=fields).json()
    assert whole["usage"]["completion_tokens"] <= 240
    for choice in whole["choices"]:
        text = choice.get("text") or choice["message"]["content"]
        mine = [piece for piece in choices if piece["index"] == choice["index"]]
        assert text == "".join(piece.get("text") or piece.get("delta", {}).get("content") or "" for piece in mine)
        assert not re.search(r"(?<![a-z0-9])user(?![a-z0-9])|你", text)
        assert len(text) > 100


def test_a_check_reads_what_comes_in(client: httpx.Client) -> None:
    for path, fields in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a bad thing"}]}),
        ("/v1/completions", {"prompt": "a bad thing"}),
    ):
        response = client.post(path, json=fields)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")
