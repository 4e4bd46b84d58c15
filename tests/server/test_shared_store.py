"""Several servers over one Redis, each a process: read anywhere, stopped from anywhere, taken over after kill -9."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from factories import killable
from factories.killable import scripted, server_process
from factories.live_server import DEADLINE_S, read_numbered
from factories.redis_server import needs_redis, redis_server
from factories.scripted_service import SCRIPT
from vivace.cli.main import main

pytestmark = needs_redis()
FACTORIES = Path(__file__).parents[1] / "factories"
PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "stream_options": {"on_disconnect": "keep", "include_usage": True},
}
LEASE_S = "1"
Server = tuple[subprocess.Popen[str], httpx.Client]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as (url, _):
        yield url


def server(url: str, command: list[str]) -> contextlib.AbstractContextManager[Server]:
    return server_process(command, "--stream-store", url, "--stream-lease", LEASE_S)


def babbling(step_s: float) -> list[str]:
    return [str(FACTORIES / "babbling_vivace.py"), str(step_s), "serve"]


def read_until(response: httpx.Response, num_events: int) -> list[tuple[int | None, Any]]:
    return read_numbered(killable.read_until(response, num_events))


def rest_of(client: httpx.Client, stream_id: str, after: int = 0) -> list[tuple[int | None, Any]]:
    return read_numbered(client.get(f"/v1/streams/{stream_id}", headers={"last-event-id": str(after)}).text)


def text_of(numbered: list[tuple[int | None, Any]]) -> str:
    choices = [event["choices"][0] for _, event in numbered if isinstance(event, dict) and event.get("choices")]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7}])
def test_another_server_takes_over_after_kill_9_and_the_text_is_the_same(url: str, sampling: dict[str, Any]) -> None:
    fields = {**ASK, **sampling, "max_tokens": 120}
    with server(url, babbling(0.01)) as (first, a), server(url, babbling(0.0)) as (_, b):
        with a.stream("POST", PATH, json=fields) as response:
            stream_id = response.headers["x-stream-id"]
            head = read_until(response, 20)
            first.send_signal(signal.SIGKILL)
            first.wait(DEADLINE_S)
        rest = rest_of(b, stream_id, 20)  # before the lease has run out: a mirror, that goes on when b has taken over
        whole = read_numbered(b.post(PATH, json=fields).text)
        assert text_of(head + rest) == text_of(whole)
        assert [number for number, _ in head + rest] == [*range(1, len(head + rest)), None]
        assert rest_of(b, stream_id) == head + rest
        assert rest[-2][1]["usage"]["total_tokens"] == whole[-2][1]["usage"]["total_tokens"]


def test_a_stream_is_read_live_and_stopped_from_another_server(url: str) -> None:
    with server(url, scripted(hold_at=4)) as (_, a), server(url, scripted()) as (_, b):
        fields = {**ASK, "stream_options": {"on_disconnect": "keep", "events": True}}
        with a.stream("POST", PATH, json=fields) as response:
            stream_id = response.headers["x-stream-id"]
            with b.stream("GET", f"/v1/streams/{stream_id}") as elsewhere:
                head = read_until(elsewhere, 5)
                assert text_of(head) == "".join(SCRIPT[:4])
                assert b.post(f"/v1/streams/{stream_id}/ack", json={"number": 2, "buffer_s": 0.5}).status_code == 200
                assert b.post(f"/v1/streams/{stream_id}/cancel").json()["status"] == "running"
                rest = read_numbered(b"".join(response.iter_raw()).decode())
        ended = rest_of(b, stream_id)
        assert ended == rest
        assert text_of(ended) == "".join(SCRIPT[:4])
        assert next(event["status"] for _, event in ended if "status" in event) == "cancelled"
        assert b.get("/v1/streams/stream-none").status_code == 404
        other_owner = b.get(f"/v1/streams/{stream_id}", headers={"authorization": "Bearer somebody"})
        assert other_owner.json()["error"]["code"] == "stream_not_found"


def test_a_reader_elsewhere_is_a_reader(url: str) -> None:
    fields = {**ASK, "stream_options": {"on_disconnect": 1.5}}
    with server(url, scripted(hold_at=4)) as (_, a), server(url, scripted()) as (_, b):
        with a.stream("POST", PATH, json=fields) as response:
            stream_id = response.headers["x-stream-id"]
            read_until(response, 2)
        with b.stream("GET", f"/v1/streams/{stream_id}") as elsewhere:
            body = elsewhere.iter_raw()
            seen = b""
            while seen.count(b"\n\n") < 5:
                seen += next(body)
            client = httpx.Client(base_url=b.base_url, timeout=DEADLINE_S, trust_env=False)
            with client, contextlib.suppress(httpx.ReadTimeout):
                elsewhere_state = [client.post(f"/v1/streams/{stream_id}/ack", json={}).json() for _ in range(3)]
            assert {state["status"] for state in elsewhere_state} == {"running"}
        assert text_of(rest_of(b, stream_id)) == "".join(SCRIPT[:4])  # ended 1.5 s after the last reader has left


def test_a_paused_server_that_comes_back_writes_nothing_and_sends_its_readers_away(url: str) -> None:
    fields = {**ASK, "temperature": 0, "max_tokens": 150}
    with server(url, babbling(0.02)) as (first, a), server(url, babbling(0.0)) as (_, b):
        with a.stream("POST", PATH, json=fields) as response:
            stream_id = response.headers["x-stream-id"]
            pieces = response.iter_raw()
            body = b""
            while body.count(b"\n\n") < 10:
                body += next(pieces)
            first.send_signal(signal.SIGSTOP)
            whole = rest_of(b, stream_id)  # taken over while the other sleeps
            first.send_signal(signal.SIGCONT)
            with pytest.raises(httpx.RemoteProtocolError):  # cut: its reader has to come back
                for piece in pieces:
                    body += piece
        seen = read_numbered(body.decode())
        assert seen == whole[: len(seen)]
        assert rest_of(a, stream_id) == rest_of(b, stream_id) == whole
        assert text_of(whole) == text_of(read_numbered(b.post(PATH, json=fields).text))


def test_responses_and_takes_work_on_any_server(url: str) -> None:
    with server(url, babbling(0.0)) as (_, a), server(url, babbling(0.0)) as (_, b):
        created = a.post("/v1/responses", json={"input": "hello", "background": True, "max_output_tokens": 60}).json()
        list(read_numbered(b.get(f"/v1/responses/{created['id']}", params={"stream": "true"}).text))
        bodies = [client.get(f"/v1/responses/{created['id']}").json() for client in (a, b)]
        assert bodies[0]["status"] == "incomplete"  # its length
        assert bodies[0]["output"] == bodies[1]["output"]
        stream_id = a.post(PATH, json={**ASK, "max_tokens": 20, "temperature": 0}).headers["x-stream-id"]
        more = b.post(f"/v1/streams/{stream_id}/continue", json={"max_tokens": 20})
        whole = a.post(PATH, json={**ASK, "max_tokens": 40, "temperature": 0})
        first = rest_of(b, stream_id)
        assert text_of(first) + text_of(read_numbered(more.text)) == text_of(read_numbered(whole.text))
        assert b.delete(f"/v1/responses/{created['id']}").status_code == 200
        assert b.get(f"/v1/responses/{created['id']}").status_code == 404


def test_a_store_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--stream-store", "redis://:secret@127.0.0.1:1/0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "stream store" in said
    assert "secret" not in said


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7}])
def test_a_real_model_is_taken_over_with_the_same_text(url: str, smollm2_path: Path, sampling: dict[str, Any]) -> None:
    command = ["-m", "vivace", "serve", "--model", str(smollm2_path), "--context", "512", "--threads", "1"]
    fields = {**ASK, **sampling, "max_tokens": 64, "ignore_eos": True}
    with server(url, command) as (first, a), server(url, command) as (_, b):
        with a.stream("POST", PATH, json=fields) as response:
            stream_id = response.headers["x-stream-id"]
            head = read_until(response, 12)
            first.send_signal(signal.SIGKILL)
            first.wait(DEADLINE_S)
        rest = rest_of(b, stream_id, 12)
        assert text_of(head + rest) == text_of(read_numbered(b.post(PATH, json=fields).text))
        assert [number for number, _ in head + rest] == [*range(1, len(head + rest)), None]
