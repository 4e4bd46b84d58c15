"""The chat page: a handful of static files, held in memory, under a policy that lets nothing foreign in."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WEB_ROOT = Path(__file__).parent / "web"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of the page and its validator for conditional requests."""

    body: bytes
    media_type: str
    etag: str


def load_static_files(root: Path = WEB_ROOT) -> dict[str, StaticFile]:
    """All files of the page by their place under it; only these can ever be asked for."""
    files = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            files[path.relative_to(root).as_posix()] = StaticFile(body, MEDIA_TYPES[path.suffix], etag)
    return files


def page_routes() -> list[Route]:
    """GET / and GET /web/NAME for every file of the page."""
    files = load_static_files()
    routes = [_route(f"/web/{name}", file) for name, file in files.items()]
    return [_route("/", files["index.html"]), *routes]


def _route(path: str, file: StaticFile) -> Route:
    async def send_file(request: Request) -> Response:
        headers = {**_HEADERS, "etag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers=headers, media_type=file.media_type)

    return Route(path, send_file, methods=["GET"])
