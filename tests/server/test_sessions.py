"""/v1/sessions and /v1/hints on a real model: saved, restored after a restart, deleted, owner-checked, not listed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from factories.live_server import LiveServer, live_server
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.tiering import TierConfig

SAY = [
    {"role": "system", "content": "You are a patient teacher. " * 8},
    {"role": "user", "content": "Tell me about the sea."},
]


@contextmanager
def server(model: Path, folder: Path | None) -> Iterator[httpx.Client]:
    config = EngineConfig(context_length=256, num_blocks=64, tiers=TierConfig(folder=folder))
    with live_server(lambda: build_service(str(model), config)) as live, live.client() as client:
        yield client


def ask(client: httpx.Client, messages: list[dict[str, str]]) -> dict[str, Any]:
    body = {"messages": messages, "max_tokens": 8, "temperature": 0}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_session_comes_back_after_a_restart_and_its_history_is_not_read_again(
    smollm2_path: Path, tmp_path: Path
) -> None:
    with server(smollm2_path, tmp_path) as client:
        said = ask(client, SAY)["choices"][0]["message"]["content"]
        told = [*SAY, {"role": "assistant", "content": said}]
        saved = client.post("/v1/sessions", json={"messages": told})
        assert saved.status_code == 201
        session = saved.json()
        assert session["num_saved_tokens"] >= session["num_tokens"] - 32
        path = f"/v1/sessions/{session['id']}"
        anna = {"authorization": "Bearer anna"}
        assert client.get(path, headers=anna).status_code == 404
        assert client.delete(path, headers=anna).json()["error"]["code"] == "session_not_found"
        assert client.get("/v1/sessions").status_code == 405
        told += [{"role": "user", "content": "And the tides?"}]
        expected = ask(client, told)["choices"][0]["message"]["content"]
    with server(smollm2_path, tmp_path) as client:
        back = client.get(path).json()
        assert back["messages"] == told[:-1]
        assert back["num_ready_tokens"] == session["num_saved_tokens"]
        again = ask(client, told)
        assert again["choices"][0]["message"]["content"] == expected
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= session["num_saved_tokens"]
        metrics = client.get("/metrics").text
        assert f"vivace_tiers_preloaded_total {session['num_saved_tokens'] / 16}" in metrics
        assert "vivace_tiers_preload_hit_rate 1.0" in metrics and "vivace_engine_prefix_hit_rate" in metrics
        assert client.post(f"{path}/hint").status_code == 202
        assert client.put(path, json={"messages": told}).json()["id"] == session["id"]
        assert client.delete(path).json() == {"id": session["id"], "deleted": True}
        assert client.get(path).status_code == 404
        assert list(tmp_path.rglob("*.json")) == []


def test_without_a_folder_sessions_are_off_and_hints_are_taken(smollm2_path: Path) -> None:
    with server(smollm2_path, None) as client:
        refused = client.post("/v1/sessions", json={"messages": SAY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (501, "sessions_off")
        assert client.post("/v1/hints", json={"messages": SAY}).json() == {"object": "hint", "taken": True}
        bad = client.post("/v1/hints", json={"messages": [], "vivace": {"tenant": "a"}})
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/hints"])
def test_bad_bodies_are_told(scripted_server: LiveServer, path: str) -> None:
    with scripted_server.client() as client:
        for body in (b"", b"{", b'{"messages": 3}', b'{"massages": []}', b'{"messages": [], "model": "other"}'):
            answer = client.post(path, content=body)
            assert answer.status_code in (400, 404) and answer.json()["error"]["message"]
