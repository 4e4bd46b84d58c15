"""Request fields that have no wire type: the ones that may be ignored and the ones that must be refused.

A field that would change the meaning of an answer is never dropped silently: it is refused unless it carries a value
that asks for nothing. An unknown field is refused with the name of the nearest known one, because a misspelt
`temprature` would otherwise be ignored.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vivace.types.errors import RequestError

IGNORED_FIELDS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Known OpenAI fields about accounts, billing and caching elsewhere: they do not change what is answered."""


@dataclass(frozen=True, slots=True)
class RefusedField:
    """A field of a feature that this server does not have; values in `neutral` (and null) ask for nothing."""

    feature: str
    mend: str
    neutral: tuple[object, ...] = field(default=())


_LEAVE_OUT = "Leave the field out."
_TOOLS_MEND = "Leave the field out and describe the tools in the prompt, or use a server with tool support."

REFUSED_FIELDS: Mapping[str, RefusedField] = {
    "tools": RefusedField("Tool calling", _TOOLS_MEND, ([],)),
    "tool_choice": RefusedField("Tool calling", _TOOLS_MEND, ("none", "auto")),
    "functions": RefusedField("Function calling", _TOOLS_MEND, ([],)),
    "function_call": RefusedField("Function calling", _TOOLS_MEND, ("none", "auto")),
    "modalities": RefusedField("Output other than text", 'Leave the field out or send ["text"].', (["text"],)),
    "audio": RefusedField("Audio output", _LEAVE_OUT),
    "web_search_options": RefusedField("Web search", _LEAVE_OUT),
    "prediction": RefusedField("Predicted output", _LEAVE_OUT),
    "moderation": RefusedField("Moderation", _LEAVE_OUT),
    "reasoning_effort": RefusedField("Reasoning effort", _LEAVE_OUT, ("none",)),
    "verbosity": RefusedField("Verbosity", "Leave the field out and say in the prompt how long to be.", ("medium",)),
    "suffix": RefusedField("Insertion before a suffix", _LEAVE_OUT, ("",)),
    "best_of": RefusedField("Choosing the best of several answers", "Use n to get several answers.", (1,)),
}


def check_fields(
    body: Mapping[str, object], known: Iterable[str], refused: Mapping[str, RefusedField] = REFUSED_FIELDS
) -> dict[str, object]:
    """The part of a request body that has a wire type; `refused` are the endpoint's fields that have none.

    Raises:
        RequestError: a field asks for a feature that is not there, or its name is not known.
    """
    names = frozenset(known)
    kept: dict[str, object] = {}
    for name, value in body.items():
        if name in names:
            kept[name] = value
        elif name in refused:
            _refuse_unless_neutral(name, value, refused[name])
        elif name not in IGNORED_FIELDS:
            raise _unknown_field(name, names)
    return kept


def _refuse_unless_neutral(name: str, value: object, row: RefusedField) -> None:
    if value is None or any(type(value) is type(neutral) and value == neutral for neutral in row.neutral):
        return
    raise RequestError(f"{row.feature} ({name!r}) is not supported.", row.mend, param=name)


def _unknown_field(name: str, known: frozenset[str]) -> RequestError:
    shown = name if len(name) <= 64 else name[:61] + "..."
    near = difflib.get_close_matches(shown, sorted(known | REFUSED_FIELDS.keys() | IGNORED_FIELDS), n=1)
    mend = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(sorted(known))}."
    return RequestError(f"Unknown field {shown!r}.", mend, param=shown)
