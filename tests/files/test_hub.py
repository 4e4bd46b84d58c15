"""Models from a hub, which here is a server on the loopback interface; the client runs as users run it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FILES = {
    "owner/one": {"README.md": b"hello", "model.gguf": b"GGUF and so on"},
    "owner/two": {"a.gguf": b"first", "sub/b.gguf": b"second"},
    "owner/folder": {"config.json": b"{}", "model.safetensors": b"tensors", "tokenizer.json": b"{}", "train.py": b"no"},
    "owner/empty": {"README.md": b"nothing here"},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def _respond(self, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            repository = "/".join(path.split("/")[2:4])
            if repository == "owner/gated":
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
            elif repository not in FILES:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            else:
                body = _tree(repository) if "/tree/" in path else _info(repository)
                self._send(200, body, {"Content-Type": "application/json"}, with_body)
            return
        repository, _, name = path.partition("/resolve/")
        content = FILES.get(repository, {}).get(name.partition("/")[2])
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        else:
            self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{name.replace("/", "-")}"'}, with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _info(repository: str) -> bytes:
    siblings = [{"rfilename": name} for name in FILES[repository]]
    return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()


def _tree(repository: str) -> bytes:
    entries = FILES[repository].items()
    return json.dumps(
        [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in entries]
    ).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


_PROGRAM = """
import sys
from vivace.files.catalogue import resolve
from vivace.types.errors import VivaceError
for name in sys.argv[1:]:
    try:
        print("path", resolve(name))
    except VivaceError as error:
        print(error.code, error)
"""


def _resolve(names: list[str], endpoint: str, home: Path) -> list[str]:
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", _PROGRAM, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_hub_ids_become_files_and_folders(hub: str, tmp_path: Path) -> None:
    names = ["owner/one", "owner/two:sub/b.gguf", "owner/folder"]
    lines = _resolve(names, hub, tmp_path)
    assert [line.split(" ")[0] for line in lines] == ["path"] * 3, lines
    one, two, folder = (Path(line.split(" ", 1)[1]) for line in lines)
    assert one.read_bytes() == b"GGUF and so on" and two.read_bytes() == b"second"
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens
    assert _resolve(names, nowhere, tmp_path) == lines  # the cache serves without a network
    (offline,) = _resolve(["owner/other"], nowhere, tmp_path)
    assert "The hub cannot be reached, and owner/other is not in its cache" in offline


def test_what_a_hub_refuses_is_said_in_one_line(hub: str, tmp_path: Path) -> None:
    names = ["owner/two", "owner/empty", "owner/none", "owner/gated", "owner/two:c.gguf"]
    choice, empty, none, gated, entry = _resolve(names, hub, tmp_path)
    assert "has 2 GGUF files: a.gguf, sub/b.gguf" in choice and "owner/two:a.gguf" in choice
    assert "neither GGUF nor safetensors" in empty
    assert "owner/none is not on the hub" in none
    assert "terms to be accepted" in gated
    assert "no such file" in entry
