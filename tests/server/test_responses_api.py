"""The Responses API: its events, its objects, and that they come out of the same log."""

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from factories.live_server import DEADLINE_S, LiveServer, live_server, read_numbered
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server.config import ServerConfig
from vivace.stream.shared_store import StoreConfig

openai = pytest.importorskip("openai", reason="the openai client is a development dependency")

TEXT = "".join(SCRIPT)
PATH = "/v1/responses"
ASK = {"input": "hello"}
STREAM = {**ASK, "stream": True}
EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * len(SCRIPT),
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture
def official(scripted_server: LiveServer) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(base_url=f"{scripted_server.url}v1", api_key="unused", max_retries=0) as client:
        yield client


def until_ended(client: httpx.Client, response_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while (body := client.get(f"{PATH}/{response_id}").json())["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline
    return body


def test_a_whole_response(official: "openai.OpenAI") -> None:
    response = official.responses.create(
        model="scripted", input="hello", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=100
    )
    assert (response.output_text, response.status, response.error) == (TEXT, "completed", None)
    assert response.usage.output_tokens == len(SCRIPT)
    assert response.usage.total_tokens == response.usage.input_tokens + len(SCRIPT)
    assert (response.instructions, response.metadata, response.max_output_tokens) == ("Be brief.", {"a": "b"}, 100)
    assert official.responses.retrieve(response.id) == response


def test_a_streamed_response_has_every_event_in_order(official: "openai.OpenAI") -> None:
    events = list(official.responses.create(model="scripted", input="hello", stream=True))
    assert [event.type for event in events] == EVENTS
    assert [event.sequence_number for event in events] == list(range(len(EVENTS)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].response.output_text == TEXT
    assert events[-1].response == official.responses.retrieve(events[0].response.id)


def test_the_streaming_helper_of_the_official_client(official: "openai.OpenAI") -> None:
    with official.responses.stream(model="scripted", input="hello") as stream:
        assert stream.get_final_response().output_text == TEXT


@pytest.mark.parametrize("last", range(len(EVENTS)))
def test_the_official_client_resumes_after_any_event(official: "openai.OpenAI", last: int) -> None:
    events = list(official.responses.create(model="scripted", input="hello", stream=True, background=True))
    response_id = events[0].response.id
    assert [event.type for event in events[:2]] == ["response.created", "response.queued"]
    rest = official.responses.retrieve(response_id, stream=True, starting_after=last)
    assert list(rest) == events[last + 1 :]


def test_the_same_log_is_read_as_a_stream(client: httpx.Client) -> None:
    whole = client.post(PATH, json=STREAM)
    stream_id = whole.headers["x-stream-id"]
    assert stream_id.startswith("resp_")
    assert client.get(f"/v1/streams/{stream_id}").content == whole.content
    assert client.get(f"{PATH}/{stream_id}", params={"stream": "true"}).content == whole.content
    rest = client.get(f"{PATH}/{stream_id}?stream=true", headers={"last-event-id": "5"})
    assert rest.content == b"\n\n".join(whole.content.split(b"\n\n")[5:])
    assert [number for number, _ in read_numbered(whole.text)] == list(range(1, len(EVENTS) + 1))
    assert whole.text.startswith("id: 1\nevent: response.created\ndata: ")


def test_a_background_response_goes_on_without_a_reader() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        accepted = client.post(PATH, json={**ASK, "background": True}).json()
        assert (accepted["status"], accepted["output"]) == ("queued", [])
        assert service.held.wait(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while not (now := client.get(f"{PATH}/{accepted['id']}").json())["output"]:
            assert time.monotonic() < deadline
        assert now["status"] == "in_progress"
        assert now["output"][0]["status"] == "in_progress"
        service.release()
        ended = until_ended(client, accepted["id"])
        assert (ended["status"], ended["output"][0]["content"][0]["text"]) == ("completed", TEXT)


def test_cancelling_keeps_what_there_is(official: "openai.OpenAI") -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        accepted = client.post(PATH, json={**ASK, "background": True}).json()
        assert service.held.wait(DEADLINE_S)
        for _ in range(2):
            cancelled = client.post(f"{PATH}/{accepted['id']}/cancel").json()
            assert cancelled["status"] == "cancelled"
            assert cancelled["output"][0]["content"][0]["text"] == "".join(SCRIPT[:3])
        *_, last = read_numbered(client.get(f"{PATH}/{accepted['id']}?stream=true").text)
        assert (last[1]["type"], last[1]["response"]) == ("response.incomplete", cancelled)


def test_a_deleted_response_is_gone(client: httpx.Client) -> None:
    response_id = client.post(PATH, json=ASK).json()["id"]
    assert client.delete(f"{PATH}/{response_id}").json() == {"id": response_id, "object": "response", "deleted": True}
    assert client.get(f"{PATH}/{response_id}").json()["error"]["code"] == "stream_not_found"


def test_a_response_goes_on_from_an_earlier_one() -> None:
    service = ScriptedService()
    with live_server(lambda: service) as server, server.client() as client:
        first = client.post(PATH, json={"input": [{"role": "user", "content": "one"}], "instructions": "A"}).json()
        second = client.post(PATH, json={"input": "two", "previous_response_id": first["id"], "instructions": "B"})
        assert second.json()["previous_response_id"] == first["id"]
        items = [*first["output"], {"role": "user", "content": [{"type": "input_text", "text": "three"}]}]
        client.post(PATH, json={"input": items})
        prompts = [bytes(request.prompt_ids[1:]).decode() for request in service.requests[1:]]
    assert prompts == [
        "<system>A<user>one<assistant>",
        f"<system>B<user>one<assistant>{TEXT}<user>two<assistant>",
        f"<assistant>{TEXT}<user>three<assistant>",
    ]


def test_incomplete_responses_say_why(client: httpx.Client) -> None:
    body = client.post(PATH, json={**ASK, "max_output_tokens": 2}).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    events = [event for _, event in read_numbered(client.post(PATH, json={**STREAM, "max_output_tokens": 2}).text)]
    assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.incomplete", "incomplete")


def test_failures_are_told_in_the_response_or_by_status() -> None:
    failing = ScriptedService(fail_at=0, warm_up_passes=True)
    with live_server(lambda: failing) as server, server.client() as client:
        assert client.post(PATH, json=ASK).status_code == 500
        assert client.post(PATH, json=STREAM).status_code == 500
        accepted = client.post(PATH, json={**ASK, "background": True}).json()
        ended = until_ended(client, accepted["id"])
        assert (ended["status"], ended["error"]["message"]) == ("failed", "The script says so.")
    later = ScriptedService(fail_at=2, warm_up_passes=True)
    with live_server(lambda: later) as server, server.client() as client:
        *_, last = read_numbered(client.post(PATH, json=STREAM).text)
        assert last[1]["type"] == "response.failed"


def test_log_probabilities_can_be_included(official: "openai.OpenAI") -> None:
    response = official.responses.create(
        model="scripted", input="hello", include=["message.output_text.logprobs"], top_logprobs=2
    )
    logprobs = response.output[0].content[0].logprobs
    assert [entry.token for entry in logprobs] == list(SCRIPT)
    assert [top.token for top in logprobs[0].top_logprobs] == ["Hello0", "Hello1"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "function_call_output", "role": "user", "content": ""}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "some"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"top_logprobs": 99}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"}, "text.format"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"previous_response_id": "resp_none"}, None),
        ({"stream_options": {"events": True}}, "stream_options"),
        ({"input": "x" * 600}, "input"),
    ],
)
def test_what_cannot_be_is_refused(client: httpx.Client, fields: dict[str, object], param: str | None) -> None:
    response = client.post(PATH, json={**ASK, **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_what_asks_for_nothing_is_taken(client: httpx.Client) -> None:
    fields = {"tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}}, "reasoning": {}, "user": "u"}
    assert client.post(PATH, json={**ASK, **fields}).status_code == 200


def test_a_chat_stream_is_no_response_and_a_stranger_finds_none(client: httpx.Client) -> None:
    chat = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "stream": True})
    assert client.get(f"{PATH}/{chat.headers['x-stream-id']}").status_code == 404
    response_id = client.post(PATH, json=ASK).json()["id"]
    assert client.get(f"{PATH}/{response_id}", headers={"authorization": "Bearer other"}).status_code == 404


def test_a_response_goes_on_after_a_restart(tmp_path: Any) -> None:
    config = ServerConfig(port=0, drain_s=0, store=StoreConfig(tmp_path / "streams.db"))
    held = ScriptedService(hold_at=4, warm_up_passes=True)
    with live_server(lambda: held, config) as server, server.client() as client:
        ended = client.post(PATH, json={**ASK, "max_output_tokens": 2}).json()
        accepted = client.post(PATH, json={**ASK, "background": True}).json()
        assert held.held.wait(DEADLINE_S)
        copied = tmp_path / "copy.db"  # as a killed server leaves it
        with sqlite3.connect(tmp_path / "streams.db") as source, sqlite3.connect(copied) as target:
            source.backup(target)
    again = ServerConfig(port=0, drain_s=1, store=StoreConfig(copied))
    with live_server(ScriptedService, again) as server, server.client() as client:
        assert client.get(f"{PATH}/{ended['id']}").json() == ended
        whole = until_ended(client, accepted["id"])
        assert whole["output"][0]["content"][0]["text"] == TEXT
        events = [event for _, event in read_numbered(client.get(f"{PATH}/{accepted['id']}?stream=true").text)]
        deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == TEXT
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
