"""Streams that are numbered, resumed and stopped over a real socket."""

from functools import partial

import httpx
import pytest

from factories.live_server import DEADLINE_S, LiveServer, live_server, read_events, read_numbered
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server.config import ServerConfig
from vivace.stream.options import KEEP as KEEP_POLICY
from vivace.stream.options import RunOptions
from vivace.stream.registry import RegistryLimits

TEXT = "".join(SCRIPT)
PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
KEEP = {**ASK, "stream_options": {"on_disconnect": "keep"}}


def text_of(payloads: list[object]) -> str:
    chunks = [payload for payload in payloads if isinstance(payload, dict) and payload.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_events_are_numbered_from_one_and_the_stream_has_an_id(client: httpx.Client) -> None:
    response = client.post(PATH, json=ASK)
    assert response.headers["x-stream-id"].startswith("stream-")
    numbers = [number for number, _ in read_numbered(response.text)]
    assert numbers == [*range(1, len(numbers)), None]  # [DONE] has none


@pytest.mark.parametrize("cut", range(len(SCRIPT) + 3))
@pytest.mark.parametrize("by_header", [False, True])
def test_a_resumed_stream_is_the_rest_byte_for_byte(client: httpx.Client, cut: int, by_header: bool) -> None:
    whole = client.post(PATH, json=ASK)
    path = f"/v1/streams/{whole.headers['x-stream-id']}"
    rest = (
        client.get(path, headers={"last-event-id": str(cut)})
        if by_header
        else client.get(path, params={"starting_after": cut})
    )
    assert rest.headers["content-type"] == whole.headers["content-type"]
    assert rest.content == b"\n\n".join(whole.content.split(b"\n\n")[cut:])


def test_a_reader_comes_back_while_the_answer_is_written() -> None:
    service = ScriptedService(hold_at=4, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        with client.stream("POST", PATH, json=KEEP) as response:
            stream_id = response.headers["x-stream-id"]
            head = ""
            for piece in response.iter_text():
                head += piece
                if "wor" in head:
                    break
        numbered = read_numbered(head)
        assert not service.cancelled.is_set()
        service.release()
        rest = client.get(f"/v1/streams/{stream_id}", headers={"last-event-id": str(numbered[-1][0])})
        assert text_of([payload for _, payload in numbered]) + text_of(read_events(rest)) == TEXT
        assert read_events(rest)[-1] == "[DONE]"


@pytest.mark.parametrize("verb", ["delete", "post"])
def test_stopping_is_a_verb_of_its_own(verb: str) -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        with client.stream("POST", PATH, json=KEEP) as response:
            stream_id = response.headers["x-stream-id"]
            path = f"/v1/streams/{stream_id}"
            assert service.held.wait(DEADLINE_S)
            with server.client() as other:
                stopped = other.delete(path) if verb == "delete" else other.post(f"{path}/cancel")
            assert stopped.json()["id"] == stream_id
            response.read()
        *chunks, done = read_events(response)
        assert (done, text_of(chunks)) == ("[DONE]", "".join(SCRIPT[:3]))
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert client.delete(path).json()["status"] == "cancelled"


def test_the_opt_in_end_event_tells_the_status(client: httpx.Client) -> None:
    fields = {**ASK, "max_tokens": 3, "stream_options": {"events": True}}
    response = client.post(PATH, json=fields)
    assert "event: end\n" in response.text
    *_, end, done = read_events(response)
    assert done == "[DONE]"
    assert (end["status"], end["reasons"], end["usage"]["completion_tokens"]) == ("incomplete", ["length"], 3)


@pytest.mark.parametrize("coalesce", [False, True])
@pytest.mark.parametrize(
    ("flush", "deltas"),
    [
        ("token", list(SCRIPT)),
        ("word", ["Hello, ", "world! ", "你", "好", " 🎉"]),
        ("sentence", ["Hello, world!", " 你好 🎉"]),
    ],
)
def test_flush_policies_choose_where_text_is_cut(
    client: httpx.Client, flush: str, deltas: list[str], coalesce: bool
) -> None:
    options = {"flush": flush, "coalesce": coalesce}
    *chunks, _ = read_events(client.post(PATH, json={**ASK, "stream_options": options}))
    found = [text for chunk in chunks if (text := chunk["choices"][0]["delta"].get("content"))]
    assert "".join(found) == TEXT
    assert coalesce or found == deltas


def test_a_paced_stream_has_the_same_text(client: httpx.Client) -> None:
    response = client.post(PATH, json={**ASK, "stream_options": {"pace": "reader"}})
    assert text_of(read_events(response)) == TEXT


def test_unknown_streams_and_numbers_are_refused(client: httpx.Client) -> None:
    stream_id = client.post(PATH, json=ASK).headers["x-stream-id"]
    for method, path, status, code in (
        ("GET", "/v1/streams/stream-none", 404, "stream_not_found"),
        ("DELETE", "/v1/streams/stream-none", 404, "stream_not_found"),
        ("GET", "/v1/streams", 404, "not_found"),
        ("GET", f"/v1/streams/{stream_id}?starting_after=99", 400, "invalid_request"),
        ("GET", f"/v1/streams/{stream_id}?starting_after=-1", 400, "invalid_request"),
        ("GET", f"/v1/streams/{stream_id}?starting_after=1x", 400, "invalid_request"),
    ):
        response = client.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), path


@pytest.mark.parametrize(
    "options",
    [
        {"flush": "page"},
        {"pace": "slow"},
        {"on_disconnect": "stay"},
        {"on_disconnect": -2},
        {"soft_timeout_s": 0},
        {"hard_timeout_s": 1e9},
    ],
)
def test_options_out_of_range_are_refused(client: httpx.Client, options: dict[str, object]) -> None:
    response = client.post(PATH, json={**ASK, "stream_options": options})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == f"stream_options.{next(iter(options))}"


def test_a_stream_needs_the_key_it_was_asked_with() -> None:
    with live_server(ScriptedService, ServerConfig(port=0, drain_s=1, api_key="right")) as server:
        with server.client(headers={"authorization": "Bearer right"}) as client:
            stream_id = client.post(PATH, json=ASK).headers["x-stream-id"]
            assert client.get(f"/v1/streams/{stream_id}").status_code == 200
        with server.client(headers={"authorization": "Bearer wrong"}) as stranger:
            assert stranger.get(f"/v1/streams/{stream_id}").status_code == 401


def test_a_request_that_fails_before_it_starts_leaves_no_stream(scripted_server: LiveServer) -> None:
    failing = ScriptedService(fail_at=0, warm_up_passes=True)
    with live_server(lambda: failing) as server, server.client() as client:
        response = client.post(PATH, json=ASK)
        assert response.status_code == 500
        assert "x-stream-id" not in response.headers


@pytest.mark.parametrize("fields", [{"n": 2, "echo": True}, {"logprobs": 1}])
def test_a_streamed_completion_is_in_the_log_too(client: httpx.Client, fields: dict[str, object]) -> None:
    ask = {"prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}, **fields}
    whole = client.post("/v1/completions", json=ask)
    path = f"/v1/streams/{whole.headers['x-stream-id']}"
    blocks = whole.content.split(b"\n\n")
    for cut in (0, 3, len(blocks) - 3):
        assert client.get(path, params={"starting_after": cut}).content == b"\n\n".join(blocks[cut:])
    *chunks, usage, done = read_events(whole)
    assert (done, usage["usage"]["completion_tokens"]) == ("[DONE]", 2 * len(SCRIPT) * fields.get("n", 1))
    texts: dict[int, str] = {}
    offsets: dict[int, list[int]] = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        offsets.setdefault(choice["index"], []).extend((choice["logprobs"] or {}).get("text_offset", []))
    echoes = ["a", "a", "b", "b"] if "echo" in fields else ["", ""]
    assert texts == {index: echo + TEXT for index, echo in enumerate(echoes)}
    if "logprobs" in fields:
        assert offsets[1] == [sum(map(len, SCRIPT[:position])) for position in range(len(SCRIPT))]


def test_the_operator_chooses_what_a_request_leaves_open() -> None:
    config = ServerConfig(port=0, drain_s=1, streams=RunOptions(KEEP_POLICY, flush="sentence"))
    with live_server(ScriptedService, config) as server, server.client() as client:

        def deltas(options: dict[str, object] | None) -> list[str]:
            *chunks, _ = read_events(client.post(PATH, json={**ASK, "stream_options": options}))
            return [text for chunk in chunks if (text := chunk["choices"][0]["delta"].get("content"))]

        assert deltas(None) == deltas({"coalesce": False}) == ["Hello, world!", " 你好 🎉"]
        assert deltas({"flush": "token"}) == list(SCRIPT)


def test_events_that_are_no_longer_held_are_an_error_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(RegistryLimits, max_log_bytes=1500)
    monkeypatch.setattr("vivace.stream.registry.RegistryLimits", small)
    with live_server(ScriptedService) as server, server.client() as client:
        whole = client.post(PATH, json=ASK)
        path = f"/v1/streams/{whole.headers['x-stream-id']}"
        lost = client.get(path, headers={"last-event-id": "1"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (410, "offset_lost")
        oldest = lost.json()["error"]["message"].split("starting_after=")[1].split(",")[0]
        rest = client.get(path, params={"starting_after": oldest})
    assert int(oldest) > 1
    assert rest.text and whole.text.endswith(rest.text)
