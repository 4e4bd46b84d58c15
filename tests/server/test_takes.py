"""Continue, regenerate and edit: a new stream goes on from a place of an old one, over a real engine and socket."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from factories.babbling_service import babbling_service
from factories.live_server import LiveServer, live_server, read_events
from vivace.server.config import ServerConfig
from vivace.stream.checkpoints import SentenceMarks
from vivace.stream.safety.screen import SafetyConfig

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hello world " * 50}],
    "stream": True,
    "max_tokens": 60,
    "temperature": 0,
    "stream_options": {"include_usage": True, "events": True},
}
SAMPLINGS: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 1.0, "seed": 5, "presence_penalty": 0.5}]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(babbling_service, ServerConfig(port=0, drain_s=1)) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as http:
        yield http


def text_of(events: list[Any], index: int = 0) -> str:
    choices = [event["choices"][0] for event in events if isinstance(event, dict) and event.get("choices")]
    return "".join(choice["delta"].get("content", "") for choice in choices if choice["index"] == index)


def named(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The named events of a body."""
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def ask(client: httpx.Client, **fields: Any) -> tuple[str, str, httpx.Response]:
    """(stream id, text, response) of an answer."""
    response = client.post(PATH, json={**ASK, **fields})
    return response.headers["x-stream-id"], text_of(read_events(response)), response


def take(client: httpx.Client, stream_id: str, verb: str, **body: Any) -> tuple[int, str, httpx.Response]:
    """(offset, new text, response) of a verb."""
    response = client.post(f"/v1/streams/{stream_id}/{verb}", json=body)
    assert response.status_code == 200, response.text
    return int(response.headers["x-stream-offset"]), text_of(read_events(response)), response


def cached_tokens(response: httpx.Response) -> int:
    usages = [event["usage"] for event in read_events(response) if isinstance(event, dict) and event.get("usage")]
    return int(next(usage for usage in usages if "total_tokens" in usage)["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("num_tokens", [1, 17, 42, 59])
def test_a_continued_answer_is_the_one_that_was_cut_short(
    client: httpx.Client, sampling: dict[str, Any], num_tokens: int
) -> None:
    _, whole, _ = ask(client, **sampling)
    stream_id, head, response = ask(client, **sampling, max_tokens=num_tokens)
    name, end = named(response)[-1]
    assert (name, end["status"], end["continue_token"]) == ("end", "incomplete", stream_id)
    offset, rest, continued = take(client, end["continue_token"], "continue", max_tokens=60 - num_tokens)
    assert head[:offset] + rest == whole
    assert len(head) - offset <= 1  # at most the sign for half a character is taken back
    assert cached_tokens(continued) > 90  # the prompt was not read again
    assert named(continued)[-1][1]["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_answer_is_regenerated_from_any_place(client: httpx.Client, sampling: dict[str, Any]) -> None:
    stream_id, whole, response = ask(client, **sampling)
    marks = SentenceMarks().feed(whole)
    checkpoints = [told for name, told in named(response) if name == "checkpoint"]
    assert [(told["name"], told["offset"]) for told in checkpoints] == [(mark.name, mark.offset) for mark in marks]
    assert len(marks) > 2
    places: list[dict[str, Any]] = [{"offset": 0}, {"offset": 31}, {"checkpoint": "s2"}]
    for place in places:
        offset, rest, regenerated = take(client, stream_id, "regenerate", **place)
        wanted = place.get("offset", marks[1].offset)
        assert wanted - 12 < offset <= wanted
        assert rest and rest != whole[offset:]
        assert cached_tokens(regenerated) > 90
        (rollback,) = [told for name, told in named(regenerated) if name == "rollback"]
        assert rollback == {"stream": stream_id, "choice": 0, "offset": offset}
        again = client.get(f"/v1/streams/{regenerated.headers['x-stream-id']}")
        assert text_of(read_events(again)) == rest
        echoed = take(client, stream_id, "regenerate", **place, echo=True)
        assert echoed[1] == whole[:offset] + rest


def test_an_edit_stands_in_the_text_and_the_answer_goes_on_from_it(client: httpx.Client) -> None:
    stream_id, whole, _ = ask(client)
    for offset in (0, 13, 30, len(whole)):
        start, rest, edited = take(client, stream_id, "edit", offset=offset, text=" 你好, user.")
        assert start == offset + len(" 你好, user.")
        assert rest
        echoed = take(client, stream_id, "edit", offset=offset, text=" 你好, user.", echo=True)
        assert echoed[1] == whole[:offset] + " 你好, user." + rest
        further = edited.headers["x-stream-id"]  # an edited answer can be continued, regenerated and edited again
        longer, more, _ = take(client, further, "continue", max_tokens=5)
        assert longer >= start + len(rest) - 1 and more
        assert take(client, further, "regenerate", offset=offset)[1]


def test_one_choice_of_several_is_taken_up(client: httpx.Client) -> None:
    fields = {"n": 2, "temperature": 1.0, "seed": 3}
    stream_id, _, response = ask(client, **fields, max_tokens=20)
    heads = [text_of(read_events(response), choice) for choice in (0, 1)]
    _, _, longer = ask(client, **fields, max_tokens=40)
    wholes = [text_of(read_events(longer), choice) for choice in (0, 1)]
    for choice in (0, 1):
        offset, rest, _ = take(client, stream_id, "continue", choice=choice, max_tokens=20)
        assert heads[choice][:offset] + rest == wholes[choice]


def test_readers_of_the_old_stream_are_told_where_it_goes_on() -> None:
    slow = live_server(lambda: babbling_service(step_s=0.01))
    fields = {**ASK, "max_tokens": 500}
    with slow as server, server.client() as client, client.stream("POST", PATH, json=fields) as response:
        stream_id = response.headers["x-stream-id"]
        body, new = "", None
        for piece in response.iter_text():
            body += piece
            if "event: checkpoint" in body and new is None:
                with server.client() as other:
                    new = take(other, stream_id, "regenerate", checkpoint="s1", max_tokens=3)[2]
        assert "event: rollback" in body and new is not None
        blocks = [block for block in body.split("\n\n") if "event: rollback" in block]
        told = json.loads(blocks[0].split("data: ")[1])
        assert told["stream"] == new.headers["x-stream-id"]
        assert '"status":"cancelled"' in body


def test_what_a_filter_has_ended_goes_on_with_something_else() -> None:
    safety = SafetyConfig(blocked_terms=("user",), action="stop")
    filtering = live_server(babbling_service, ServerConfig(port=0, drain_s=1, safety=safety))
    with filtering as server, server.client() as client:
        stream_id, text, response = ask(client, max_tokens=400)
        for _ in range(3):
            assert named(response)[-1][1]["reasons"] == ["content_filter"]
            offset, rest, response = take(client, stream_id, "continue", max_tokens=200)
            assert rest and not re.search(r"\buser\b", text)
            stream_id, text = response.headers["x-stream-id"], text[:offset] + rest


def test_what_cannot_be_taken_up_is_refused(client: httpx.Client) -> None:
    stream_id, whole, _ = ask(client)
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        ("regenerate", {"offset": len(whole) + 1}, 400, "offset"),
        ("regenerate", {"offset": -1}, 400, "offset"),
        ("regenerate", {"checkpoint": "s99"}, 400, "checkpoint"),
        ("regenerate", {"choice": 1}, 400, "choice"),
        ("continue", {"max_tokens": 0}, 400, "max_tokens"),
        ("continue", {"max_tokens": 9999}, 400, "max_tokens"),
        ("edit", {"offset": 0}, 400, "text"),
        ("edit", {"offset": 0, "text": "x", "nonsense": 1}, 400, "nonsense"),
    ]
    for verb, body, status, param in cases:
        response = client.post(f"/v1/streams/{stream_id}/{verb}", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param), (verb, body)
    assert client.post("/v1/streams/stream-none/continue").status_code == 404
    ended, _, _ = ask(client, stop="user", max_tokens=400)
    refused = client.post(f"/v1/streams/{ended}/continue")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "nothing_to_continue")
