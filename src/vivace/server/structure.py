"""The structure of an answer: the ways in which requests ask for one, as the one way that admission knows."""

from vivace.server.requests import GenerationFields, ResponseFormat
from vivace.types.errors import RequestError

FORMATS = ("text", "json_object", "json_schema")


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
    if wanted.type not in FORMATS:
        raise RequestError(
            f"The response format {wanted.type[:64]!r} is not supported.",
            f"Use one of {', '.join(FORMATS)}.",
            param=f"{param}.type",
        )
    if wanted.type == "json_object":
        return {"json_object": True}
    if wanted.type == "text":
        return None
    if wanted.json_schema is None:
        raise RequestError(
            "The response format has no schema.",
            'Send {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}.',
            param=f"{param}.json_schema",
        )
    return {"json": wanted.json_schema.schema}
