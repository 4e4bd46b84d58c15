"""The TypeScript client under Node, against a real server through a network that breaks."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factories.cutting_proxy import cutting_proxy
from factories.live_server import DEADLINE_S, LiveServer, live_server
from factories.node import needs_node, node_modules, run_node
from factories.scripted_service import ScriptedService

pytestmark = needs_node

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "node" / "read.mjs"
PIECES = tuple(f"{number} 你好👩‍👩‍👧, " for number in range(40))
TEXT = "".join(PIECES)
QUICK = {"maxTries": 10, "baseMs": 1, "maxWaitMs": 10}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(lambda: ScriptedService(PIECES)) as live:
        yield live


def read(url: str, **given: object) -> dict[str, Any]:
    told: dict[str, Any] = run_node(SCRIPT, {"url": url, "retry": QUICK, **given})
    return told


@pytest.mark.parametrize("seed", range(4))
def test_cuts_at_random_places_lose_and_double_nothing(server: LiveServer, seed: int) -> None:
    rng = random.Random(seed)
    limits: list[int | None] = [rng.randint(0, 2500) for _ in range(8)]
    with cutting_proxy(server.port, lambda: limits.pop() if limits else None) as url:
        told = read(url)
    assert ("".join(told["texts"]), told["error"]) == (TEXT, None)
    assert told["numbers"] == list(range(1, told["lastNumber"] + 1))
    assert told["names"][-1] == "end"
    assert told["retries"] >= 5


def test_another_process_resumes_at_the_position_of_the_first(server: LiveServer) -> None:
    first = read(server.url, leaveAfter=10)
    rest = read(server.url, streamId=first["streamId"], lastNumber=first["lastNumber"])
    assert "".join(first["texts"] + rest["texts"]) == TEXT


def test_aborting_stops_the_answer_on_the_server() -> None:
    service = ScriptedService(PIECES, hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        told = read(server.url, abortAfter=3)
        assert told["error"]["name"] == "AbortError"
        assert service.cancelled.wait(DEADLINE_S)


def test_what_the_server_refuses_is_told_and_not_tried_again(server: LiveServer) -> None:
    told = read(server.url, fields={"temperature": 9})
    assert (told["error"]["status"], told["error"]["code"], told["retries"]) == (400, "invalid_request", 0)
    assert "temperature" in told["error"]["message"]
    told = read(server.url, streamId="stream-none")
    assert (told["error"]["status"], told["error"]["code"]) == (404, "stream_not_found")


def test_a_failure_in_band_is_thrown() -> None:
    with live_server(lambda: ScriptedService(PIECES, fail_at=2, warm_up_passes=True)) as server:
        told = read(server.url)
    assert told["error"] == {
        "name": "StreamBrokenError",
        "message": "The script says so.",
        "status": 0,
        "code": "internal_error",
    }


def test_a_server_that_never_answers_is_given_up() -> None:
    told = read("http://127.0.0.1:9", retry={**QUICK, "maxTries": 4})
    assert (told["retries"], told["error"]["name"]) == (3, "StreamBrokenError")


def test_a_connection_that_falls_silent_is_made_anew() -> None:
    service = ScriptedService(PIECES, hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        told = read(server.url, silenceMs=200, retry={**QUICK, "maxTries": 4})
    assert "".join(told["texts"]) == "".join(PIECES[:3])
    assert told["retries"] >= 3


def test_reports_reach_the_server(server: LiveServer) -> None:
    told = read(server.url, report={"number": 5, "rtt_s": 0.25})
    assert told["error"] is None
    with server.client() as client:
        assert "vivace_stream_client_rtt_seconds_sum 0.25" in client.get("/metrics").text


def test_the_chat_page_has_the_client_as_it_is_built(tmp_path: Path) -> None:
    web = tmp_path / "web"
    shutil.copytree(ROOT / "web", web, ignore=shutil.ignore_patterns("node_modules", "dist"))
    compiler = node_modules(ROOT / "web") / "typescript" / "bin" / "tsc"
    subprocess.run(["node", compiler, "-p", "tsconfig.json", "--noEmit"], cwd=web, check=True)
    subprocess.run(["node", compiler, "-p", "tsconfig.page.json", "--outDir", "built"], cwd=web, check=True)
    page = ROOT / "src" / "vivace" / "server" / "web" / "client"
    built = {path.name: path.read_text() for path in (web / "built").iterdir()}
    assert built == {path.name: path.read_text() for path in page.iterdir()}, "run npm run build in web/"
