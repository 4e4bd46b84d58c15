"""POST /v1/chat/completions over a real socket."""

import json

import httpx
import pytest

from factories.live_server import live_server, read_events
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.types.errors import EngineError, OverloadedError
from vivace.types.speculation import SpeculationUsage

TEXT = "".join(SCRIPT)
HELLO = [{"role": "user", "content": "hello"}]
PATH = "/v1/chat/completions"


def test_a_whole_answer_has_the_openai_shape(client: httpx.Client) -> None:
    body = client.post(PATH, json={"model": "scripted", "messages": HELLO}).json()
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    prompt_tokens = 1 + len(b"<user>hello<assistant>")
    assert body == {
        "object": "chat.completion",
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(SCRIPT),
            "total_tokens": prompt_tokens + len(SCRIPT),
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }


def test_a_streamed_answer_is_role_then_deltas_then_reason_then_done(client: httpx.Client) -> None:
    response = client.post(PATH, json={"messages": HELLO, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = read_events(response)
    assert done == "[DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert [choice["delta"]["content"] for choice in choices[1:-1]] == list(SCRIPT)
    assert choices[-1] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_in_a_last_chunk_without_choices_when_asked_for(client: httpx.Client) -> None:
    fields = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = read_events(client.post(PATH, json=fields))
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(SCRIPT)


def test_every_choice_is_streamed_under_its_index(client: httpx.Client) -> None:
    *chunks, _ = read_events(client.post(PATH, json={"messages": HELLO, "stream": True, "n": 3}))
    for index in range(3):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == TEXT
        assert [choice["delta"].get("role") for choice in mine[:2]] == ["assistant", None]
        assert mine[-1]["finish_reason"] == "stop"


def test_logprobs_have_token_bytes_and_alternatives(client: httpx.Client) -> None:
    fields = {"messages": HELLO, "logprobs": True, "top_logprobs": 2}
    whole = client.post(PATH, json=fields).json()["choices"][0]["logprobs"]
    assert whole["content"][0] == {
        "token": "Hello",
        "logprob": -0.5,
        "bytes": list(b"Hello"),
        "top_logprobs": [
            {"token": "Hello0", "logprob": -1.0, "bytes": list(b"Hello0")},
            {"token": "Hello1", "logprob": -2.0, "bytes": list(b"Hello1")},
        ],
    }
    *chunks, _ = read_events(client.post(PATH, json={**fields, "stream": True}))
    streamed = [entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {}).get("content", [])]
    assert streamed == whole["content"]


def test_parameters_reach_the_engine() -> None:
    service = ScriptedService()
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief"}]
    fields = {
        "messages": [{"role": "developer", "content": parts}, *HELLO],
        "temperature": 0.25,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"65": -100},
        "seed": 42,
        "max_completion_tokens": 3,
        "stop": "x",
        "stop_token_ids": [9],
        "ignore_eos": True,
        "priority": 2,
        "vivace": {"tenant": "t", "ttft_s": 1.5},
        "user": "somebody",
        "store": False,
        "tools": [],
        "response_format": {"type": "text"},
        "n": None,
    }
    with live_server(lambda: service) as server, server.client() as client:
        answer = client.post(PATH, json=fields)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    request = service.requests[-1]
    assert bytes(request.prompt_ids[1:]) == b"<system>Be\nbrief<user>hello<assistant>"
    sampling, stopping = request.sampling, request.stopping
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.25, 0.5, 7, 0.125)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, 0.5, -0.5)
    assert (sampling.logit_bias, sampling.seed) == (((65, -100.0),), 42)
    assert (stopping.max_tokens, stopping.stop, stopping.stop_token_ids, stopping.ignore_eos) == (3, ("x",), (9,), True)
    level = request.service_level
    assert (level.tier, level.tenant, level.ttft_s) == (2, "t", 1.5)


def test_every_api_key_is_a_tenant_of_its_own_unless_a_request_names_one() -> None:
    service = ScriptedService()
    hello = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    named = hello | {"vivace": {"tenant": "t", "tier": 1}}
    asked = [("a", hello), ("b", hello), ("a", hello | {"vivace": {"tier": 3}}), ("a", named), (None, hello)]
    with live_server(lambda: service) as server, server.client() as client:
        for key, body in asked:
            client.post(PATH, json=body, headers={} if key is None else {"authorization": f"Bearer {key}"})
    tenants = [request.service_level.tenant for request in service.requests[-len(asked) :]]
    assert tenants[0] == tenants[2] != tenants[1] and tenants[3:] == ["t", ""]
    assert tenants[0].startswith("key:") and service.requests[-3].service_level.tier == 3


def test_a_failure_before_the_first_piece_is_a_plain_error_response() -> None:
    failure = OverloadedError("Too many requests wait.", "Try later.", retry_after_s=7)
    with (
        live_server(lambda: ScriptedService(fail_at=0, failure=failure, warm_up_passes=True)) as server,
        server.client() as client,
    ):
        response = client.post(PATH, json={"messages": HELLO, "stream": True})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["message"] == "Too many requests wait. Try later."


@pytest.mark.parametrize("failure", [EngineError("It broke."), ZeroDivisionError("oops")])
def test_a_failure_in_the_middle_of_a_stream_is_told_in_band(failure: BaseException) -> None:
    with (
        live_server(lambda: ScriptedService(fail_at=3, failure=failure, warm_up_passes=True)) as server,
        server.client() as client,
    ):
        response = client.post(PATH, json={"messages": HELLO, "stream": True})
    *chunks, error, done = read_events(response)
    assert response.status_code == 200
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "".join(SCRIPT[:3])
    assert error["error"]["type"] == "server_error"
    assert "oops" not in json.dumps(error)
    assert done == "[DONE]"


def test_an_internal_mistake_is_an_error_object_without_a_traceback() -> None:
    failing = ScriptedService(fail_at=0, failure=ZeroDivisionError("oops"), warm_up_passes=True)
    with live_server(lambda: failing) as server, server.client() as client:
        response = client.post(PATH, json={"messages": HELLO})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_error"
    assert "oops" not in response.text


def test_what_was_dropped_of_a_long_chat_is_told_in_the_usage() -> None:
    service = ScriptedService()
    with live_server(lambda: service) as server, server.client() as client:
        plain = client.post(PATH, json={"messages": HELLO})
        assert "vivace" not in plain.json()["usage"] and "x-vivace-dropped-tokens" not in plain.headers
        service.dropped_tokens = 12
        body = {"messages": HELLO, "vivace": {"long_chat": "truncate"}}
        told = client.post(PATH, json=body)
        assert told.json()["usage"]["vivace"] == {"dropped_tokens": 12}
        assert told.headers["x-vivace-dropped-tokens"] == "12"
        streamed = client.post(PATH, json={**body, "stream": True})
        assert streamed.headers["x-vivace-dropped-tokens"] == "12"
    assert service.long_chat == "truncate"


def test_what_drafts_did_is_told_in_the_usage_whole_or_streamed() -> None:
    service = ScriptedService()
    service.speculation = SpeculationUsage(4, 10, 8, 6, (4, 4), (3, 3), (2.0,), cost=5.0)
    told = {
        "drafted": 8,
        "accepted": 6,
        "accepted_at": [3, 3],
        "tried_at": [4, 4],
        "drafts_over_time": [2.0],
        "tokens_per_turn": 2.5,
        "speedup": 2.0,
    }
    with live_server(lambda: service) as server, server.client() as client:
        assert client.post(PATH, json={"messages": HELLO}).json()["usage"]["vivace"] == {"speculation": told}
        body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
        lines = client.post(PATH, json=body).text.split("\n\n")
    (last,) = [json.loads(line.partition("data: ")[2]) for line in lines if '"speculation"' in line]
    assert last["usage"]["vivace"]["speculation"] == told and last["choices"] == []
