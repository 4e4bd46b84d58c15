"""Clients that know nothing of vivace work unchanged: openai for Node, curl, a browser's EventSource."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from factories.chat_page import BROWSER, DRIVER, open_browser
from factories.cutting_proxy import cutting_proxy
from factories.live_server import DEADLINE_S, LiveServer, read_numbered
from factories.node import needs_node, node_modules, run_node
from factories.scripted_service import SCRIPT

TEXT = "".join(SCRIPT)
FOLDER = Path(__file__).parent / "node"
ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


def text_of(payloads: list[object]) -> str:
    chunks = [payload for payload in payloads if isinstance(payload, dict) and payload.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


@needs_node
def test_openai_for_node(scripted_server: LiveServer) -> None:
    told = run_node(FOLDER / "official.mjs", {"url": scripted_server.url}, node_modules(FOLDER))
    assert (told["whole"], told["streamed"], told["response"]) == (TEXT, TEXT, TEXT)
    assert told["tokens"] == len(SCRIPT)
    assert told["numbers"] == list(range(len(told["numbers"])))
    assert told["isResumed"]
    assert (told["cancelled"], told["afterDelete"]) == ("completed", [404, "stream_not_found"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_asks_and_resumes(scripted_server: LiveServer, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--no-buffer", "--max-time", str(DEADLINE_S), "--noproxy", "*", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    headers = tmp_path / "headers"
    body = curl(f"{scripted_server.url}v1/chat/completions", "-d", json.dumps(ASK), "-D", str(headers))
    assert text_of([payload for _, payload in read_numbered(body)]) == TEXT
    named = dict(line.split(": ", 1) for line in headers.read_text().splitlines() if ": " in line)
    rest = curl(f"{scripted_server.url}v1/streams/{named['x-stream-id']}?starting_after=4")
    assert rest == "\n\n".join(body.split("\n\n")[4:])


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
def test_the_event_source_of_a_browser_reads_and_resumes(scripted_server: LiveServer) -> None:
    pytest.importorskip("selenium", reason="selenium is a development dependency")
    with scripted_server.client() as client:
        whole = client.post("/v1/chat/completions", json=ASK)
    numbered = read_numbered(whole.text)
    limits: list[int | None] = [2000, 1800]  # the page itself, then more of the stream, then no cut

    def next_limit() -> int | None:
        return limits.pop(0) if limits else None

    with cutting_proxy(scripted_server.port, next_limit) as url, open_browser() as browser:
        browser.get(f"{url}/web/icon.svg")
        browser.execute_script(
            """
            window.heard = [];
            window.errors = 0;
            const source = new EventSource(arguments[0]);
            source.onerror = () => (window.errors += 1);
            source.onmessage = (event) => {
              window.heard.push([event.lastEventId, event.data]);
              if (event.data === "[DONE]") source.close();
            };
            """,
            f"/v1/streams/{whole.headers['x-stream-id']}?starting_after=2",
        )
        deadline = time.monotonic() + DEADLINE_S
        while not (heard := browser.execute_script("return window.heard")) or heard[-1][1] != "[DONE]":
            assert time.monotonic() < deadline
        assert browser.execute_script("return window.errors") >= 1  # it came back by itself, with Last-Event-ID
    assert [int(number) for number, _ in heard[:-1]] == [number for number, _ in numbered[2:-1]]
    assert text_of([json.loads(data) for _, data in heard[:-1]]) == text_of([data for _, data in numbered[2:]])
