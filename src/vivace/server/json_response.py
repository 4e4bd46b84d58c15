"""A JSON response from a wire type."""

import msgspec
from starlette.responses import Response


def json_response(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Encode a wire type as the body of a response."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
