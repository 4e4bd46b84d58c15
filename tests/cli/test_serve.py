"""`vivace serve` as a process: its port, its one line, its signals."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from vivace.cli.stream_options import FLUSH_NAMES, PACE_NAMES
from vivace.stream.flush import FLUSH_POLICIES
from vivace.stream.pacing import PACES

SCRIPTED = Path(__file__).parents[1] / "factories" / "scripted_vivace.py"
DEADLINE_S = 60
HELLO = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


@contextmanager
def serving(*arguments: str, options: str = "{}") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server process and the page's URL it printed."""
    command = [sys.executable, str(SCRIPTED), options, "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("vivace: the chat page is at http://127.0.0.1:"), process.communicate()
        yield process, line.split()[6]
    finally:
        process.kill()
        process.communicate()


def fetch(url: str, path: str) -> httpx.Response:
    with httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE_S) as client:
        return client.get(path)


@pytest.mark.parametrize("version", [(), ("--http2",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_url_when_it_answers_and_ends_on_a_signal(
    number: signal.Signals, version: tuple[str, ...]
) -> None:
    if version:
        pytest.importorskip("hypercorn", reason="hypercorn is the extra http2")
    with serving(*version) as (process, url):
        assert fetch(url, "/ready").status_code == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_running_answer_is_drained_and_the_late_one_is_cut() -> None:
    options = json.dumps({"hold_at": 2, "warm_up_passes": True})
    with serving("--drain", "1", options=options) as (process, url):
        with httpx.stream(
            "POST", f"{url}v1/chat/completions", json=HELLO, timeout=DEADLINE_S, trust_env=False
        ) as response:
            data = (line for line in response.iter_lines() if line.startswith("data: "))
            assert "assistant" in next(data)
            process.send_signal(signal.SIGTERM)
            rest = list(data)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "ended by the server" in rest[-2]
    assert rest[-1] == "data: [DONE]"


def test_a_taken_port_is_one_line_and_status_two() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_serve("--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"vivace: error: Port {port} on 127.0.0.1 is already in use. Stop what uses it, or choose another --port.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--port", "99999"), "99999"),
        (("--port", "web"), "web"),
        (("--host", "203.0.113.1", "--port", "0"), "not an address of this machine"),
        (("--host", "no such host", "--port", "0"), "Cannot listen"),
        (("--drain", "-1", "--port", "0"), "--drain"),
    ],
)
def test_an_impossible_address_is_one_line_and_status_two(arguments: tuple[str, ...], hint: str) -> None:
    done = run_serve(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vivace: error: ")
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error() -> None:
    done = run_serve("--port", "0", options='{"load_error": "The file is torn."}')
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vivace: error: The file is torn. Get it again.\n"


def test_the_access_log_is_written_when_asked_for() -> None:
    with serving("--access-log") as (process, url):
        fetch(url, "/health")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert "GET /health 200" in errors


def test_two_servers_may_follow_each_other_on_one_port() -> None:
    with serving() as (process, url):
        port = httpx.URL(url).port
        fetch(url, "/health")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    with serving("--port", str(port)) as (_, again):
        assert again == url


def run_serve(*arguments: str, options: str = "{}") -> "subprocess.CompletedProcess[str]":
    """A server that is expected to end by itself."""
    command = [sys.executable, str(SCRIPTED), options, "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_the_names_of_flush_policies_and_paces_are_those_of_their_tables() -> None:
    assert tuple(FLUSH_POLICIES) == FLUSH_NAMES
    assert tuple(PACES) == PACE_NAMES
