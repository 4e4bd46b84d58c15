"""The layers around every endpoint, as plain ASGI callables (a function-style base class would hold streams back)."""

import hmac
import logging
import re
import time
import uuid
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vivace.server.caller import api_key_in
from vivace.server.disconnect import ClientGone
from vivace.server.errors import HttpError, error_response
from vivace.stream.errors import StreamMovedError
from vivace.types.errors import EngineError, VivaceError

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("vivace.access")

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_SECRET_ID = re.compile(r"((?:stream-|resp_|session-)[\w-]{9})[\w-]+", re.ASCII)
"""Names that open streams, responses and sessions where there is no API key: logs have their beginning alone."""
_OPEN_PATHS = frozenset({"/", "/health", "/ready"})
_OPEN_PREFIX = "/web/"


class RequestRecord:
    """Gives each request an id (`x-request-id`, the client's own when it is sound) and one line in the access log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else f"req-{uuid.uuid4().hex}"
        started_s = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            wall_ms = (time.perf_counter() - started_s) * 1e3
            shown = status or "no answer"
            path = _SECRET_ID.sub(r"\1...", scope["path"])
            access_logger.info("%s %s %s %.1f ms id=%s", scope["method"], path, shown, wall_ms, request_id)


class ErrorAnswers:
    """Turns what endpoints and inner layers raise into error objects; tracebacks go to the log, never to a client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and answer for what it raises."""
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in ("http.response.start", "websocket.accept")
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except (ClientGone, ClientDisconnect):
            return
        except StreamMovedError as error:
            if started:  # cut off without an end, so that the client comes back
                logger.warning("a reader of %s is sent away: %s", scope["path"][:32], error)
                return
            await error_response(error)(scope, receive, send)
        except VivaceError as error:
            if started:
                raise
            await error_response(error)(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if started:
                raise
            mistake = EngineError("The server made a mistake of its own.", "Its log says more; please report it.")
            await error_response(mistake)(scope, receive, send)


def routing_error(error: HTTPException, scope: Scope) -> HttpError:
    """The error for a path or a method that is not there, from what the router raised."""
    path, method = scope["path"], scope["method"]
    if error.status_code == 405:
        return HttpError(
            405, "method_not_allowed", f"{path} does not take {method}.", "See docs/api.md.", headers=error.headers
        )
    return HttpError(
        error.status_code, "not_found", f"There is nothing at {path}.", "See docs/api.md for the endpoints."
    )


class Gate:
    """Refuses requests without the API key, and writes and sockets of a foreign web page in a visitor's browser.

    Browsers add `Origin` to every cross-origin POST and to every WebSocket. Without this check any web page could put
    this machine to work, even though it could not read the answer of a POST.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, origins: Iterable[str]) -> None:
        self._app = app
        self._api_key = api_key.encode() if api_key else None
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise HttpError 401 or 403."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            self._check_origin(scope.get("method", "websocket"), headers)
            self._check_key(scope["path"], headers)
        await self._app(scope, receive, send)

    def _check_origin(self, method: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or method in {"GET", "HEAD"} or "*" in self._origins or origin in self._origins:
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise HttpError(
                403,
                "origin_not_allowed",
                f"Pages of {origin!r} may not use this server.",
                f"Start it with --cors-origin {origin} to allow them.",
            )

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._api_key is None or path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX):
            return
        if not hmac.compare_digest(api_key_in(headers).encode(), self._api_key):
            raise HttpError(
                401,
                "invalid_api_key",
                "The API key is missing or wrong.",
                "Send the header 'Authorization: Bearer KEY'.",
                headers={"www-authenticate": "Bearer"},
            )


class BodyLimit:
    """Refuses a request body over the limit before it is held in memory, whether or not its length was declared."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; reading its body raises HttpError 413 past the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_counted, send)

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            "request_too_large",
            f"The request body is larger than {self._max_bytes} bytes.",
            "Send a shorter request.",
            headers={"connection": "close"},
        )
