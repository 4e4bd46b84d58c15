"""Probes, lists, tokens and pages."""

import threading

import httpx
import pytest

from factories.live_server import DEADLINE_S, live_server
from factories.scripted_service import ScriptedService
from vivace.server.pages import load_static_files
from vivace.types.errors import ModelFileError


def test_the_port_answers_while_the_model_loads() -> None:
    may_finish, settled = threading.Event(), threading.Event()

    def load_slowly() -> ScriptedService:
        assert may_finish.wait(DEADLINE_S)
        return ScriptedService()

    with live_server(load_slowly, wait=False) as server, server.client() as client:
        assert client.get("/health").json() == {"status": "ok", "model": None, "message": None}
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")
        early = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
        assert (early.status_code, early.json()["error"]["code"]) == (503, "overloaded")
        assert int(early.headers["retry-after"]) >= 1
        assert client.get("/v1/models").status_code == 503
        may_finish.set()
        server.model.join(DEADLINE_S)
        settled.set()
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "model": "scripted", "message": None})


def test_a_model_that_cannot_be_loaded_is_told_everywhere() -> None:
    def fail() -> ScriptedService:
        raise ModelFileError("The file is torn.", "Get it again.")

    with live_server(fail) as server, server.client() as client:
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "failed")
        assert ready.json()["message"] == "The file is torn. Get it again."
        assert client.get("/health").status_code == 200
        answer = client.post("/tokenize", json={"text": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
        assert "The file is torn" in answer.json()["error"]["message"]


def test_a_model_that_fails_its_warm_up_is_not_ready_and_is_freed() -> None:
    service = ScriptedService(fail_at=0)
    with live_server(lambda: service) as server, server.client() as client:
        assert client.get("/ready").json()["status"] == "failed"
    assert service.closed.is_set()


def test_an_engine_that_broke_is_not_ready() -> None:
    service = ScriptedService()
    with live_server(lambda: service) as server, server.client() as client:
        assert client.get("/ready").status_code == 200
        service.ready = False
        ready = client.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")


def test_a_model_that_arrives_after_the_server_stopped_is_freed() -> None:
    may_finish, service = threading.Event(), ScriptedService()

    def load_slowly() -> ScriptedService:
        assert may_finish.wait(DEADLINE_S)
        return service

    with live_server(load_slowly, wait=False) as server:
        server.model.close()
        may_finish.set()
    assert service.closed.is_set()


def test_models_lists_the_one_that_is_served(client: httpx.Client) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    (model,) = body["data"]
    assert (model["id"], model["object"], model["context_length"]) == ("scripted", "model", 512)
    assert client.get("/v1/models/scripted").json() == model


@pytest.mark.parametrize("name", ["other", "a/b", "%2e%2e"])
def test_another_model_is_not_found(client: httpx.Client, name: str) -> None:
    response = client.get(f"/v1/models/{name}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("field", ["text", "prompt", "content"])
def test_tokenize_and_detokenize_are_inverse(client: httpx.Client, field: str) -> None:
    tokens = client.post("/tokenize", json={field: "héllo 你好", "add_special_tokens": False}).json()
    assert tokens == {"tokens": list("héllo 你好".encode()), "count": 13, "max_model_len": 512}
    assert client.post("/detokenize", json={"tokens": tokens["tokens"]}).json() == {"text": "héllo 你好"}


def test_tokenize_takes_a_conversation(client: httpx.Client) -> None:
    tokens = client.post("/tokenize", json={"messages": [{"role": "user", "content": "hi"}]}).json()["tokens"]
    assert bytes(tokens[1:]) == b"<user>hi<assistant>"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "text"),
        ("/tokenize", {"text": "a", "prompt": "b"}, "text"),
        ("/tokenize", {"text": 3}, "text"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [256]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_wrong_token_requests_are_named(client: httpx.Client, path: str, fields: dict[str, object], param: str) -> None:
    response = client.post(path, json=fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_the_page_comes_with_a_strict_policy_and_a_validator(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_file_the_page_names_is_served_and_nothing_else_is(client: httpx.Client) -> None:
    names = set(load_static_files())
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= names
    assert all(client.get(f"/web/{name}").status_code == 200 for name in names)
    for path in ("/web/", "/web/../app.py", "/web/%2e%2e/app.py", "/web/nothing.js"):
        assert client.get(path).status_code == 404


def test_the_page_asks_nothing_of_other_machines() -> None:
    for name, file in load_static_files().items():
        text = file.body.decode().replace("http://www.w3.org/2000/svg", "")
        addresses = [part for part in ("http://", "//cdn", "@import", "url(") if part in text]
        assert not addresses, name


def test_model_text_can_only_reach_the_page_as_text() -> None:
    scripts = [file.body.decode() for name, file in load_static_files().items() if name.endswith(".js")]
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert not any(unsafe in script for script in scripts)
