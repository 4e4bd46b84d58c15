"""Keeping control tokens out of what users wrote, while a chat template puts it among control tokens of its own.

A template yields one string, in which nothing tells the `<|im_end|>` of the template from one that a user typed. So
before rendering, a *breaker*, a character that occurs nowhere else, is put inside every control token that a message
spells; after rendering, the string is cut at the control tokens that are still whole, and the breakers are taken out.

Harmless messages are passed on untouched, so their rendering, and with it their ids, is the ordinary one. That alone
could be tricked by a template that removes characters from a message (`replace('<image>', '')` makes a control token of
`<|im_<image>end|>`) or writes brackets around it. Therefore, as soon as a message could be any part of a control token,
a second rendering is made with a breaker after *every* character that begins a control token, and before a message that
could go on with one. In it no control token can come from a message. If both renderings have the same control tokens,
the first one is sound; otherwise the second is used.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from vivace.text.literals import LiteralMatcher
from vivace.types.errors import RequestError

# Noncharacters first: text meant for interchange never holds them. Then the private use area.
_BREAKERS = [*range(0xFDD0, 0xFDF0), *range(0xE000, 0xF900)]


class ContentGuard:
    """Breaks control tokens inside untrusted values.

    Args:
        matcher: finds the control tokens of the model.
        control_texts: the same as texts.
    """

    def __init__(self, matcher: LiteralMatcher, control_texts: frozenset[str]) -> None:
        self._matcher = matcher
        self._first = frozenset(text[0] for text in control_texts)
        self._last = frozenset(text[-1] for text in control_texts)
        self._longest = max(map(len, control_texts), default=0)
        self._inner = "\0".join(text[1:-1] for text in control_texts)

    def is_suspicious(self, value: Any) -> bool:
        """Whether any string in `value` could be part of a control token."""
        return any(not self._first.isdisjoint(text) or self._may_go_on(text) for text in strings_of(value))

    def _may_go_on(self, text: str) -> bool:
        """Whether `text` could be the end, or the middle, of a control token that begins before it."""
        if not self._last.isdisjoint(text):
            return True
        core = text.strip()
        return 0 < len(core) < self._longest and core in self._inner

    def break_tokens(self, value: Any, breaker: str) -> Any:
        """`value` with a breaker inside every control token that one of its strings spells."""

        def broken(text: str) -> str:
            cuts = [start + 1 for start in self._matcher.starts(text)]
            return breaker.join(text[begin:end] for begin, end in pairwise([0, *cuts, len(text)]))

        return map_strings(value, broken)

    def break_everything(self, value: Any, breaker: str) -> Any:
        """`value` with a breaker wherever a string in it could begin, or complete, a control token."""
        table = {ord(character): character + breaker for character in self._first}

        def broken(text: str) -> str:
            return (breaker if self._may_go_on(text) else "") + text.translate(table)

        return map_strings(value, broken)


def choose_breaker(value: Any, template: str) -> str:
    """A character that occurs neither in `value` nor in `template`.

    Raises:
        RequestError: the text holds all 6,432 candidates.
    """
    used = set(template)
    for text in strings_of(value):
        if not text.isascii():
            used.update(text)
    for candidate in map(chr, _BREAKERS):
        if candidate not in used:
            return candidate
    raise RequestError(
        "The messages hold every character of Unicode's private use area.", "Send ordinary text.", param="messages"
    )


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON-like value with `change` applied to every string, keys of objects included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_strings(item, change) for item in value]
    return value


def strings_of(value: Any) -> list[str]:
    """Every string in a JSON-like value, keys of objects included."""
    found: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            pending += item
    return found
