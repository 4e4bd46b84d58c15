"""The structure of an answer: the ways in which requests ask for one, as the one way that admission knows."""

from vivace.server.requests import GenerationFields, ResponseFormat
from vivace.server.response_types import TextFormat
from vivace.types.errors import RequestError

FORMATS = ("text", "json_object", "json_schema")
EXAMPLE = '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}'
TEXT_EXAMPLE = '{"type": "json_schema", "name": "...", "schema": {...}}'


def structured_outputs(fields: GenerationFields) -> dict[str, object] | None:
    """The parameter `structured_outputs` of a request; None where it asks for no structure.

    Raises:
        RequestError: several structures, or a response format that is not known.
    """
    guided = {
        "guided_json": ("json", fields.guided_json),
        "guided_regex": ("regex", fields.guided_regex),
        "guided_choice": ("choice", fields.guided_choice),
        "guided_grammar": ("grammar", fields.guided_grammar),
    }
    asked: dict[str, dict[str, object]] = {
        name: {way: value} for name, (way, value) in guided.items() if value is not None
    }
    if fields.structured_outputs is not None:
        asked["structured_outputs"] = fields.structured_outputs
    by_format = None if fields.response_format is None else of_format(fields.response_format, "response_format")
    if by_format is not None:
        asked["response_format"] = by_format
    if len(asked) > 1:
        first, second, *_ = asked
        raise RequestError(f"{first} and {second} both give the answer a structure.", "Send one of them.", param=second)
    return next(iter(asked.values()), None)


def of_format(wanted: ResponseFormat, param: str) -> dict[str, object] | None:
    """What a response format asks for; None for plain text.

    Raises:
        RequestError: there is no such format, or its schema is missing.
    """
    schema = None if wanted.json_schema is None else wanted.json_schema.schema
    return _of(wanted.type, schema, param, f"{param}.json_schema", EXAMPLE)


def of_text_format(wanted: TextFormat, param: str) -> dict[str, object] | None:
    """The same for a text format of the Responses API, which has the schema beside the type."""
    return _of(wanted.type, wanted.schema, param, f"{param}.schema", TEXT_EXAMPLE)


def _of(
    kind: str, schema: dict[str, object] | None, param: str, schema_param: str, example: str
) -> dict[str, object] | None:
    if kind not in FORMATS:
        raise RequestError(
            f"The response format {kind[:64]!r} is not supported.",
            f"Use one of {', '.join(FORMATS)}.",
            param=f"{param}.type",
        )
    if kind == "json_object":
        return {"json_object": True}
    if kind == "text":
        return None
    if schema is None:
        raise RequestError("The response format has no schema.", f"Send {example}.", param=schema_param)
    return {"json": schema}
