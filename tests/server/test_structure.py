"""Answers with a structure over HTTP, guessed ahead: whole, streamed and restarted they keep to it."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.killable import killable, read_until, text_of
from factories.live_server import DEADLINE_S, LiveServer, live_server, read_events, read_numbered
from vivace.engine.build import EngineConfig, build_service
from vivace.speculate.policy import POLICIES, FixedPolicy
from vivace.types.request import Continuation

pytest.importorskip("llguidance", reason="needs the extra grammar")

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
HELLO = {"messages": [{"role": "user", "content": "Who is it?"}], "max_tokens": 200, "temperature": 0}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
TEXT_BY_SCHEMA = {"format": {"type": "json_schema", "name": "person", "schema": PERSON}}
ABC = {"prompt": "x", "temperature": 0, "guided_regex": "(abc){40}", "max_tokens": 200}
BY_REGEX = {**HELLO, "guided_regex": "(abc){40}", "stream": True, "stream_options": {"on_disconnect": "keep"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path, small_spec())
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LiveServer]:
    config = EngineConfig(speculate="auto", num_blocks=64, num_threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POLICIES, "measured", FixedPolicy)  # for a model so small looking costs more than it may bring
        with live_server(lambda: build_service(str(model), config)) as live:
            yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as http:
        yield http


def assert_person(text: str) -> None:
    told = json.loads(text)
    assert set(told) == {"name", "age"} and isinstance(told["name"], str) and 0 <= told["age"] <= 99


def test_a_response_format_is_kept_to_whole_and_streamed(client: httpx.Client) -> None:
    whole = client.post(CHAT, json={**HELLO, "response_format": BY_SCHEMA}).json()
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert_person(whole["choices"][0]["message"]["content"])
    *chunks, _ = read_events(client.post(CHAT, json={**HELLO, "response_format": BY_SCHEMA, "stream": True}))
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert streamed == whole["choices"][0]["message"]["content"]


def test_drafts_stand_in_an_answer_with_a_structure(client: httpx.Client) -> None:
    body = client.post("/v1/completions", json=ABC).json()
    assert (body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == ("abc" * 40, "stop")
    assert body["usage"]["vivace"]["speculation"]["accepted"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_text_format_of_a_response_is_kept_to_and_told_back(client: httpx.Client, stream: bool) -> None:
    ask = {"input": "Who is it?", "max_output_tokens": 200, "temperature": 0, "text": TEXT_BY_SCHEMA, "stream": stream}
    answer = client.post(RESPONSES, json=ask)
    body: dict[str, Any] = answer.json() if not stream else read_events(answer)[-1]["response"]
    assert (body["status"], body["text"]) == ("completed", TEXT_BY_SCHEMA)
    assert_person(body["output"][0]["content"][0]["text"])


def test_a_response_may_be_any_object(client: httpx.Client) -> None:
    ask = {"input": "x", "max_output_tokens": 40, "temperature": 0, "text": {"format": {"type": "json_object"}}}
    text = client.post(RESPONSES, json=ask).json()["output"][0]["content"][0]["text"]
    assert text.startswith("{")
    plain = client.post(RESPONSES, json={**ask, "text": {"format": {"type": "text"}}}).json()
    assert plain["text"] == {"format": {"type": "text"}}


def test_a_grammar_that_was_kept_as_a_text_goes_on_from_any_token(server: LiveServer) -> None:
    service = server.model.service()
    asked = {"structured_outputs": {"regex": "(abc){8}"}, "temperature": 0, "max_tokens": 60}
    request = service.admit(service.encode("x"), asked)
    assert request.grammar is not None
    token_ids = [token_id for chunk in service.iterate(request) for token_id in chunk.token_ids]
    for number in range(len(token_ids)):
        begun = Continuation(tuple(token_ids[:number]))
        again = replace(request, request_id=f"again-{number}", grammar=request.grammar.source, continuation=begun)
        assert service.complete(again).choices[0].text == "abc" * 8


def test_a_restarted_server_keeps_to_the_structure(tmp_path: Path, model: Path) -> None:
    command = ["-m", "vivace", "serve", "--model", str(model), "--context", "256", "--speculate", "ngram"]
    with killable(command, tmp_path / "s.db") as (process, http), http.stream("POST", CHAT, json=BY_REGEX) as response:
        stream_id = response.headers["x-stream-id"]
        head = read_numbered(read_until(response, 8))
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    with killable(command, tmp_path / "s.db") as (_, http):
        seen = {"last-event-id": str(head[-1][0])}
        rest = read_numbered(http.get(f"/v1/streams/{stream_id}", headers=seen).text)
    assert re.fullmatch("(abc)+[ab]{0,2}", text_of(head)) and text_of(head) + text_of(rest) == "abc" * 40
