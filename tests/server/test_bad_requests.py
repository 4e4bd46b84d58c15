"""What the server says to requests that cannot be answered: one error object that names the field and the remedy."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories.live_server import live_server
from factories.scripted_service import ScriptedService
from vivace.server.config import RequestSizes, ServerConfig

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response, which must have exactly the four OpenAI fields."""
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b'{"messages": [}',
        b'{"messages": "\xff\xfe"}',
        b'{"a": NaN}',
        b'{"a": "\\ud800 lone"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
        b'{"temperature": 1e999}',
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize", "/detokenize"])
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({}, "messages", "missing"),
        ({"messages": []}, "messages", "empty"),
        ({"messages": "hello"}, "messages", "Expected array, got str"),
        ({"messages": ["hello"]}, "messages[0]", "Expected object"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "no content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "got int"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "system, developer, user, assistant"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "not supported"),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": "", "tool_calls": [{}]}]},
            "messages[1].tool_calls",
            "not supported",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            "image_url",
        ),
        ({"messages": HELLO, "temperature": "hot"}, "temperature", "Expected float, got str"),
        ({"messages": HELLO, "temperature": True}, "temperature", "got bool"),
        ({"messages": HELLO, "temperature": -1}, "temperature", "at least 0"),
        ({"messages": HELLO, "temperature": 3}, "temperature", "at most 2"),
        ({"messages": HELLO, "top_p": 0}, "top_p", "above 0"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens", "at least 1"),
        ({"messages": HELLO, "max_tokens": 1.5}, "max_tokens", "Expected int"),
        ({"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens", "only one"),
        ({"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
        ({"messages": HELLO, "n": 0}, "n", "at least 1"),
        ({"messages": HELLO, "n": 1000}, "n", "at most 16"),
        ({"messages": HELLO, "stream": "yes"}, "stream", "Expected bool"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"messages": HELLO, "stop": [""]}, "stop", "non-empty"),
        ({"messages": HELLO, "stop": {"a": 1}}, "stop", "got object"),
        ({"messages": HELLO, "logit_bias": {"one": 1}}, "logit_bias", "token"),
        ({"messages": HELLO, "logit_bias": {"1": 101}}, "logit_bias", "at most 100"),
        ({"messages": HELLO, "logit_bias": [1]}, "logit_bias", "Expected object"),
        ({"messages": HELLO, "logprobs": 3}, "logprobs", "Expected bool"),
        ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
        ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"messages": HELLO, "seed": 2**70}, "seed", ""),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"messages": HELLO, "tool_choice": "required"}, "tool_choice", "not supported"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema", "schema"),
        ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type", "not supported"),
        ({"messages": HELLO, "guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "one of them"),
        ({"messages": HELLO, "structured_outputs": {"regexp": "a"}}, "structured_outputs", "one of json"),
        ({"messages": HELLO, "modalities": ["text", "audio"]}, "modalities", "not supported"),
        ({"messages": HELLO, "priority": 10}, "tier", "at most 9"),
        ({"messages": HELLO, "priority": 1, "vivace": {"tier": 2}}, "priority", "only one"),
        ({"messages": HELLO, "vivace": {"ttft_s": 0}}, "ttft_s", "above 0"),
        ({"messages": HELLO, "vivace": {"tenant": 3}}, "vivace.tenant", "Expected str"),
        ({"messages": HELLO, "vivace": {"tiers": 3}}, "vivace", "unknown field"),
        ({"messages": HELLO, "temprature": 0.5}, "temprature", "'temperature'"),
        ({"messages": HELLO, "max_token": 5}, "max_token", "'max_tokens'"),
        ({"messages": HELLO, "zzz": 5}, "zzz", "Known fields"),
        ({"messages": HELLO, "echo": True}, "echo", "Unknown field"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(
    client: httpx.Client, fields: dict[str, object], param: str, hint: str
) -> None:
    response = client.post(CHAT, json=fields)
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert error["param"] == param
    assert hint in error["message"]


def test_a_prompt_longer_than_the_context_has_its_own_code(client: httpx.Client) -> None:
    for path, field, value in (
        (CHAT, "messages", [{"role": "user", "content": "x" * 600}]),
        ("/v1/completions", "prompt", "x" * 600),
    ):
        response = client.post(path, json={field: value})
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", field)
        assert "512" in error["message"]


def test_another_model_is_not_found(client: httpx.Client) -> None:
    response = client.post(CHAT, json={"model": "gpt-9", "messages": HELLO})
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "'scripted'" in error["message"]


def test_a_model_without_a_template_says_so() -> None:
    with live_server(lambda: ScriptedService(has_template=False)) as server, server.client() as client:
        error = error_of(client.post(CHAT, json={"messages": HELLO}))
        assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200
    assert "no chat template" in error["message"]


def test_unknown_paths_and_methods_are_error_objects(client: httpx.Client) -> None:
    assert error_of(client.get("/v2/chat"))["code"] == "not_found"
    response = client.get(CHAT)
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_embeddings_are_off_and_clients_need_not_retry(client: httpx.Client) -> None:
    response = client.post("/v1/embeddings", json={"input": "x", "model": "scripted"})
    assert (response.status_code, error_of(response)["code"]) == (501, "embeddings_off")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused(declared: bool) -> None:
    body = b'{"prompt": "' + b"x" * 5000 + b'"}'
    content = body if declared else iter([body[:100], body[100:]])
    config = ServerConfig(port=0, sizes=RequestSizes(max_body_bytes=4096))
    with live_server(ScriptedService, config) as server, server.client() as client:
        response = client.post("/v1/completions", content=content)
    assert response.status_code == 413
    assert "4096" in error_of(response)["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from(
    [
        "messages",
        "prompt",
        "max_tokens",
        "temperature",
        "stop",
        "n",
        "seed",
        "stream",
        "logit_bias",
        "logprobs",
        "tools",
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([CHAT, "/v1/completions", "/tokenize", "/detokenize"]),
    fields=st.dictionaries(field_names, json_values, max_size=4),
)
def test_no_json_object_makes_the_server_fail(client: httpx.Client, path: str, fields: dict[str, object]) -> None:
    response = client.post(path, json=fields)
    assert response.status_code in {200, 400, 404}
    if response.status_code != 200:
        assert error_of(response)["message"]
