"""The parameter `structured_outputs`: what an answer has to look like, in one of five ways, as vLLM names them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from vivace.engine.rules import Rule, shown
from vivace.text.grammar import CompiledGrammar, GrammarCompiler
from vivace.types.errors import RequestError
from vivace.types.grammar import GrammarKind

MAX_CHARACTERS = 100_000
_Reading = tuple[GrammarKind, str]


def _schema(name: str, value: object) -> _Reading:
    if isinstance(value, str):
        return "json", _text(name, value)
    if not isinstance(value, Mapping):
        raise RequestError(f"{name} is {shown(value)}.", "Give a JSON schema as an object.", param=name)
    try:
        return "json", _text(name, json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        raise RequestError(f"{name} is no JSON.", "Give a JSON schema as an object.", param=name) from None


def _any_object(name: str, value: object) -> _Reading:
    if value is not True:
        raise RequestError(f"{name} is {shown(value)}.", "Give true, or leave it out.", param=name)
    return "json", '{"type": "object"}'


def _choice(name: str, value: object) -> _Reading:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
    if not is_list or not all(isinstance(entry, str) and entry for entry in cast(Sequence[object], value)):
        raise RequestError(f"{name} is {shown(value)}.", "Give a list of non-empty strings.", param=name)
    return "grammar", _text(name, "start: " + " | ".join(map(json.dumps, cast(Sequence[str], value))))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHARACTERS:
        raise RequestError(f"{name} is {shown(value)}.", f"Give 1 to {MAX_CHARACTERS} characters.", param=name)
    return value


WAYS: dict[str, Callable[[str, object], _Reading]] = {
    "json": _schema,
    "json_object": _any_object,
    "regex": lambda name, value: ("regex", _text(name, value)),
    "choice": _choice,
    "grammar": lambda name, value: ("grammar", _text(name, value)),
}
"""Ways to say it: a JSON schema, any JSON object, a regular expression, one of some strings, a grammar in Lark."""


def structure(grammars: GrammarCompiler | None) -> Rule:
    """An object with one of WAYS, which becomes a grammar."""

    def check(name: str, value: object) -> CompiledGrammar:
        given = dict(value) if isinstance(value, Mapping) else {}
        given = {key: entry for key, entry in given.items() if entry is not None}
        if len(given) != 1 or not given.keys() <= WAYS.keys():
            raise RequestError(f"{name} is {shown(value)}.", f"Give one of {', '.join(WAYS)}.", param=name)
        if grammars is None:
            raise RequestError("This model's answers cannot be given a structure.", "Leave it out.", param=name)
        ((way, entry),) = given.items()
        param = f"{name}.{way}"
        return grammars.compile(*WAYS[way](param, entry), param)

    return check
