"""Who asks: the API key of a request, wherever its protocol lets a client put it."""

import base64
import binascii

from starlette.datastructures import Headers

from vivace.stream.registry import owner_of

SUBPROTOCOL = "vivace"
KEY_PREFIX = "vivace.key."
"""A browser cannot set headers of a WebSocket. It offers the subprotocols `vivace` and `vivace.key.` with the key in
base64url without padding."""


def api_key_in(headers: Headers) -> str:
    """The key that a request carries, "" for none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(KEY_PREFIX):
            return _decoded(offered.strip().removeprefix(KEY_PREFIX))
    return ""


def owner_in(headers: Headers) -> str:
    """What is remembered of the caller."""
    return owner_of(api_key_in(headers))


def _decoded(encoded: str) -> str:
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
