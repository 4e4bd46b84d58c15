"""Server processes that are killed, and what was read from them until then."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from factories.live_server import DEADLINE_S

SCRIPTED = Path(__file__).parent / "scripted_vivace.py"


@contextmanager
def server_process(command: list[str], *options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server process on a free port, killed at the end if it is not dead by then."""
    arguments = [sys.executable, *command, "--port", "0", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:
            yield process, client
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
        if process.stdout is not None:
            process.stdout.close()


def killable(
    command: list[str], stream_file: Path
) -> AbstractContextManager[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server process whose streams are in a file."""
    return server_process(command, "--stream-file", str(stream_file))


def scripted(**options: object) -> list[str]:
    return [str(SCRIPTED), json.dumps({"warm_up_passes": True, **options}), "serve"]


def read_until(response: httpx.Response, num_events: int) -> str:
    """The body up to and with event number `num_events`."""
    body = b""
    for piece in response.iter_raw():
        body += piece
        if body.count(b"\n\n") >= num_events:
            break
    return "\n\n".join(body.decode().split("\n\n")[:num_events]) + "\n\n"


def text_of(numbered: list[tuple[int | None, object]]) -> str:
    choices = [event["choices"][0] for _, event in numbered if isinstance(event, dict) and event["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)
