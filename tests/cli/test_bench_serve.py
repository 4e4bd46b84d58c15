"""`vivace bench serve`: its arithmetic, and a whole run against our own server over real sockets."""

import asyncio
import json
from pathlib import Path

import pytest

from vivace.cli import bench_serve
from vivace.cli.bench_serve import ServerRun
from vivace.cli.compare.load import chat_body, send_all
from vivace.cli.compare.servers import SERVERS
from vivace.cli.main import main

ANSWER = b"""HTTP/1.1 200 OK\r
content-type: text/event-stream\r
\r
id: 1
data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}

data: {"choices": [{"delta": {"content": "Good "}}]}

: a comment
data: {"choices": [{"delta": {"content": "day"}}]}

data: {"choices": [], "usage": {"completion_tokens": 2}}

data: [DONE]

"""


async def served(answer: bytes) -> tuple[list[str], list[int], list[str], list[int]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        assert body["stream"] is True
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        body = chat_body("m", [{"role": "user", "content": "Hello"}], 2)
        found = await send_all(port, [body, body])
    texts, counts = [one.text for one in found], [one.num_tokens for one in found]
    return texts, counts, [one.error for one in found], [len(one.pieces) for one in found]


def test_only_pieces_with_text_count_and_tokens_come_from_the_usage() -> None:
    assert asyncio.run(served(ANSWER)) == (["Good day"] * 2, [2, 2], ["", ""], [2, 2])


def test_errors_before_and_inside_a_stream_are_told() -> None:
    refused = asyncio.run(served(b"HTTP/1.1 503 Busy\r\n\r\nlater"))[2]
    assert all("503" in error and "later" in error for error in refused)
    broken = ANSWER.replace(b'{"choices": [], "usage": {"completion_tokens": 2}}', b'{"error": {"message": "broke"}}')
    assert all("broke" in error for error in asyncio.run(served(broken))[2])


def test_the_table_has_medians_and_the_first_rows_advantage() -> None:
    fast = [ServerRun(speed, 0.1, 0.2, 0.05, 0.01, 1 << 20) for speed in (90.0, 300.0, 310.0)]
    table = bench_serve.as_table({"vivace": fast, "other": [ServerRun(100, 1, 2, 0.5, 0, 1 << 21)]}, {"third": "why"})
    assert "3.00 x" in table
    assert "  300" in table
    assert "absent: third: why" in table


def test_unknown_servers_and_numbers_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", "--rows", "vivace,apache"]) != 0
    assert "llama-server" in capsys.readouterr().err
    assert main(["bench", "serve", "--chats", "0"]) != 0
    assert "--chats" in capsys.readouterr().err


def test_our_own_server_is_measured_and_the_absent_is_listed(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path / "cache"))
    saved = tmp_path / "found.json"
    sizes = ("--chats", "2", "--prompt", "48", "--answer", "6", "--turns", "1", "--threads", "1")
    rows = ("--rows", "vivace,llama-server", "--json", str(saved))
    assert main(["bench", "serve", "--model", str(smollm2_path), *sizes, *rows]) == 0
    assert "absent: llama-server: not installed" in capsys.readouterr().out
    (run,) = json.loads(saved.read_text(encoding="utf-8"))["rows"]["vivace"]
    assert run["tokens_per_s"] > 0
    assert 0 < run["ttft_p50_s"] <= run["ttft_p95_s"]
    assert 0 <= run["first_thread_share"] < 1


def test_every_row_names_a_format_that_is_there() -> None:
    assert all(name.partition(":")[2] in ("", row.format) for name, row in SERVERS.items())
