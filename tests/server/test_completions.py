"""POST /v1/completions over a real socket."""

import httpx
import pytest

from factories.live_server import LiveServer, live_server, read_events
from factories.scripted_service import SCRIPT, ScriptedService

TEXT = "".join(SCRIPT)
PATH = "/v1/completions"


def test_a_whole_completion_has_the_openai_shape(client: httpx.Client) -> None:
    body = client.post(PATH, json={"model": "scripted", "prompt": "Say"}).json()
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "text_completion",
        "model": "scripted",
        "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": len(SCRIPT),
            "total_tokens": 4 + len(SCRIPT),
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }


def test_sixteen_tokens_are_the_default_as_in_the_openai_api() -> None:
    with live_server(lambda: ScriptedService(["x"] * 40)) as server, server.client() as client:
        choice = client.post(PATH, json={"prompt": "Say"}).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 16, "length")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Say", [b"\x01Say"]),
        ([83, 97, 121], [b"Say"]),
        (["Say", "it"], [b"\x01Say", b"\x01it"]),
        ([[83], [97, 121]], [b"S", b"ay"]),
        (["Say", [97]], [b"\x01Say", b"a"]),
    ],
)
def test_a_prompt_is_text_or_tokens_or_a_list_of_either(prompt: object, expected: list[bytes]) -> None:
    service = ScriptedService()
    with live_server(lambda: service) as server, server.client() as client:
        body = client.post(PATH, json={"prompt": prompt, "n": 2}).json()
    assert sorted(bytes(request.prompt_ids) for request in service.requests[1:]) == sorted(expected)
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(expected)))
    assert body["usage"]["completion_tokens"] == 2 * len(expected) * len(SCRIPT)


def test_streams_of_several_prompts_are_woven_into_one(client: httpx.Client) -> None:
    fields = {"prompt": ["a", "b", "c"], "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = read_events(client.post(PATH, json=fields))
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    for index in range(6):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == TEXT
        assert [choice["finish_reason"] for choice in mine] == [None] * len(SCRIPT) + ["stop"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6 * len(SCRIPT)


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_in_front(client: httpx.Client, stream: bool) -> None:
    response = client.post(PATH, json={"prompt": ["Say ", [83, 111]], "echo": True, "stream": stream})
    if stream:
        choices = [chunk["choices"][0] for chunk in read_events(response)[:-1]]
        texts = ["".join(choice["text"] for choice in choices if choice["index"] == index) for index in range(2)]
    else:
        texts = [choice["text"] for choice in response.json()["choices"]]
    assert texts == ["Say " + TEXT, "So" + TEXT]


def test_logprobs_are_columns_with_offsets(client: httpx.Client) -> None:
    fields = {"prompt": "Say", "max_tokens": 3, "logprobs": 1}
    whole = client.post(PATH, json=fields).json()["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["Hello", ", ", "wor"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"Hello0": -1.0}, {", 0": -1.0}, {"wor0": -1.0}],
        "text_offset": [0, 5, 7],
    }
    chunks = read_events(client.post(PATH, json={**fields, "stream": True}))[:-1]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    assert {name: [entry for piece in pieces for entry in piece[name]] for name in whole} == whole


def test_logprobs_zero_reports_drawn_tokens_only(client: httpx.Client) -> None:
    logprobs = client.post(PATH, json={"prompt": "Say", "logprobs": 0}).json()["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] is None
    assert logprobs["tokens"] == list(SCRIPT)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": [70000]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "messages": []}, "messages"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({}, "prompt"),
    ],
)
def test_a_wrong_field_is_named(client: httpx.Client, fields: dict[str, object], param: str) -> None:
    response = client.post(PATH, json=fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_one_failing_prompt_ends_the_others() -> None:
    class OneFails(ScriptedService):
        async def acomplete(self, request: object) -> object:
            if request.prompt_ids[-1] == ord("b"):  # type: ignore[attr-defined]
                raise ZeroDivisionError
            return await super().acomplete(request)  # type: ignore[arg-type]

    service = OneFails(hold_at=4)
    with live_server(lambda: service) as server:
        status = _post(server, {"prompt": ["a", "b"]})
    assert status == 500
    assert service.cancelled.wait(10)


def _post(server: LiveServer, fields: dict[str, object]) -> int:
    with server.client() as client:
        return client.post(PATH, json=fields).status_code
