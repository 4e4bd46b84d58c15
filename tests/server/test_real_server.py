"""The whole way from a socket to the engine and back, with a real model."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from factories.live_server import LiveServer, live_server, read_events
from vivace.engine.build import EngineConfig, build_service

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[LiveServer]:
    config = EngineConfig(context_length=1024)
    with live_server(lambda: build_service(str(smollm2_path), config)) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as http:
        yield http


def test_it_knows_the_capital_of_france(client: httpx.Client) -> None:
    assert client.get("/ready").status_code == 200
    body = client.post(CHAT, json={**QUESTION, "max_tokens": 24}).json()
    assert "Paris" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_streamed_is_the_same_text_as_whole(client: httpx.Client) -> None:
    fields = {**QUESTION, "max_tokens": 24, "logprobs": True, "top_logprobs": 2}
    whole = client.post(CHAT, json=fields).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, _ = read_events(client.post(CHAT, json={**fields, **options}))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert (
        "".join(choice["delta"].get("content", "") for choice in choices) == (whole["choices"][0]["message"]["content"])
    )
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    tokens = [entry["token"] for choice in choices for entry in (choice["logprobs"] or {}).get("content", [])]
    assert tokens == [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]]


def test_a_seeded_answer_can_be_had_again(client: httpx.Client) -> None:
    fields = {"prompt": "Once upon a time", "seed": 7, "temperature": 1.2, "max_tokens": 24, "n": 2}
    first, second = (client.post("/v1/completions", json=fields).json()["choices"] for _ in range(2))
    assert [choice["text"] for choice in first] == [choice["text"] for choice in second]
    assert first[0]["text"] != first[1]["text"]


def test_a_stop_string_ends_an_answer_and_is_not_in_it(client: httpx.Client) -> None:
    fields = {"prompt": "1, 2, 3, 4,", "temperature": 0, "max_tokens": 24, "stop": " 7"}
    choice = client.post("/v1/completions", json=fields).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (" 5, 6,", "stop")


def test_leaving_frees_the_engine(server: LiveServer, client: httpx.Client) -> None:
    endless = {"prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=endless) as response:
        next(response.iter_lines())
    assert client.post(CHAT, json={**QUESTION, "max_tokens": 4}).status_code == 200
    stats = server.model.service().stats()
    assert (stats.running_sequences, stats.held_blocks) == (0, 0)


def test_text_survives_the_tokenizer(client: httpx.Client) -> None:
    text = "Grüße, 你好 👩‍👩‍👧 <|im_start|>"
    tokens = client.post("/tokenize", json={"text": text}).json()["tokens"]
    assert client.post("/detokenize", json={"tokens": tokens}).json()["text"] == text


def test_a_prompt_longer_than_the_context_is_refused(client: httpx.Client) -> None:
    response = client.post(CHAT, json={"messages": [{"role": "user", "content": "word " * 2000}]})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_lone_surrogate_is_refused(client: httpx.Client) -> None:
    response = client.post("/tokenize", content=b'{"text": "\\ud800x"}')
    assert response.status_code == 400
