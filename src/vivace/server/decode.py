"""From the bytes of a request body to a wire type, with every mistake told in the sender's terms."""

import re
from typing import TypeVar

import msgspec
from starlette.requests import Request

from vivace.server.caller import owner_in
from vivace.server.fields import REFUSED_FIELDS, check_fields
from vivace.server.requests import ConversationRequest, GenerationFields, ServiceFields
from vivace.stream.registry import owner_of
from vivace.types.errors import RequestError

WireT = TypeVar("WireT", bound=msgspec.Struct)
NOBODY = owner_of("")
"""The owner of what callers without a key ask."""

_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `([^`]+)`")


async def read_body(request: Request, wire_type: type[WireT]) -> WireT:
    """Read the whole body of a request and decode it.

    Raises:
        RequestError: as `decode_body`; HttpError 413 from the body limit.
    """
    wire = decode_body(await request.body(), wire_type)
    name_tenant(wire, owner_in(request.headers))
    return wire


def name_tenant(wire: msgspec.Struct, owner: str) -> None:
    """Let a caller with an API key be a tenant of its own, where the body names none.

    Args:
        wire: a decoded body; one without service fields stays as it is.
        owner: of the caller, see `owner_in`.
    """
    if owner == NOBODY or not isinstance(wire, GenerationFields | ConversationRequest):
        return
    if wire.vivace is None:
        wire.vivace = ServiceFields()
    if wire.vivace.tenant is None:
        wire.vivace.tenant = f"key:{owner[:32]}"


def decode_body(body: bytes, wire_type: type[WireT]) -> WireT:
    """Decode a JSON body into a wire type.

    Raises:
        RequestError: no JSON, not an object, a field that is unknown, refused, missing or of the wrong type.
    """
    refused = {**REFUSED_FIELDS, **getattr(wire_type, "refused", {})}
    fields = check_fields(_parse_object(body), wire_type.__struct_fields__, refused)
    try:
        return msgspec.convert(fields, wire_type)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None


def _parse_object(body: bytes) -> dict[str, object]:
    if not body:
        raise RequestError("The request body is empty.", "Send a JSON object.")
    try:
        parsed = msgspec.json.decode(body)
    except RecursionError:
        raise RequestError("The request body is nested too deeply.", "Send a flat JSON object.") from None
    except UnicodeDecodeError:
        raise RequestError("The request body is not UTF-8.", "Encode the JSON as UTF-8.") from None
    except msgspec.MsgspecError as error:
        raise RequestError(f"The request body is not JSON: {error}.", "Send one JSON object.") from None
    if not isinstance(parsed, dict):
        raise RequestError(f"The request body is {_json_name(parsed)}, not an object.", "Send one JSON object.")
    return parsed


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _field_error(message: str) -> RequestError:
    """Turn msgspec's "Expected `int | null`, got `str` - at `$.a`" into an error that names the field."""
    path = _PATH.search(message)
    where = path.group(1) if path else ""
    what = _PATH.sub("", message)
    missing = _MISSING.match(what)
    if missing:
        name = f"{where}.{missing.group(1)}" if where else missing.group(1)
        return RequestError(f"The field {name!r} is missing.", "Add it to the request body.", param=name)
    what = what.replace("`", "").replace(" | null", "")
    return RequestError(f"The field {where!r} is wrong: {what}.", "See docs/api.md for its type.", param=where or None)
