"""Errors on the wire: the OpenAI-style error object and the response that carries it."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from vivace.types.errors import OverloadedError, RequestError, VivaceError


class ErrorObject(msgspec.Struct):
    """The inner object of an OpenAI-style error. `message` says what happened and how to mend it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct):
    """The body of every response that is not a success, and of an error inside a stream."""

    error: ErrorObject


class HttpError(RequestError):
    """A request refused by the HTTP front itself, with the status and code it is refused with."""

    def __init__(
        self, http_status: int, code: str, what: str, mend: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, mend)
        self.status = http_status
        self.error_code = code
        self.headers = dict(headers or {})


TYPE_BY_STATUS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
    HTTPStatus.NOT_IMPLEMENTED: "not_implemented_error",
}


def status_of(error: VivaceError) -> int:
    """HTTP status an error is answered with."""
    return error.status if isinstance(error, HttpError) else error.http_status


def error_body(error: VivaceError) -> ErrorBody:
    """The error object of an error: its message, kind, the field to blame and its stable code."""
    status = status_of(error)
    fallback = "invalid_request_error" if status < 500 else "server_error"
    return ErrorBody(
        ErrorObject(
            message=str(error),
            type=TYPE_BY_STATUS.get(HTTPStatus(status), fallback),
            param=error.param if isinstance(error, RequestError) else None,
            code=error.error_code if isinstance(error, HttpError) else error.code,
        )
    )


def error_response(error: VivaceError) -> Response:
    """The whole response for an error; a client that retries on its own is told when, or not to."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    elif status >= 500:
        headers["x-should-retry"] = "false"
    return Response(msgspec.json.encode(error_body(error)), status, headers, media_type="application/json")
