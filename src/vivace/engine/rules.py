"""What a request parameter may be: one row each, with its type and its range. Raises RequestError, names the field."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vivace.cache.policies import parse_policy
from vivace.types.errors import ConfigError, RequestError

Rule = Callable[[str, object], object]


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in [low, high]; `low_open` leaves `low` itself out; `integer` takes whole numbers only."""

    low: float
    high: float
    integer: bool = False
    low_open: bool = False

    def __call__(self, name: str, value: object) -> float | int:
        """Check one value and return it as int or float."""
        kind = "a whole number" if self.integer else "a number"
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float):
            raise RequestError(f"{name} is {shown(value)}.", f"Give {kind}.", param=name)
        too_low = value <= self.low if self.low_open else value < self.low
        if too_low or value > self.high or not math.isfinite(value):
            raise RequestError(f"{name} is {shown(value)}.", f"Give {kind} {self._range()}.", param=name)
        return int(value) if self.integer else float(value)

    def _range(self) -> str:
        low = f"above {self.low:g}" if self.low_open else f"of at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


def flag(name: str, value: object) -> bool:
    """A bool, and nothing that merely looks like one."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {shown(value)}.", "Give true or false.", param=name)
    return value


def label(name: str, value: object) -> str:
    """A name of at most 128 characters."""
    if not isinstance(value, str) or len(value) > 128:
        raise RequestError(f"{name} is {shown(value)}.", "Give a string of at most 128 characters.", param=name)
    return value


def kv_policy(name: str, value: object) -> str:
    """The name of a KV policy with its numbers, as in `window:1024:4`."""
    text = label(name, value)
    try:
        parse_policy(text)
    except ConfigError as error:
        raise RequestError(error.what, error.mend, param=name) from None
    return text


def stop_strings(name: str, value: object) -> tuple[str, ...]:
    """One string or up to 16 of them, none empty."""
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, Sequence) or not all(isinstance(entry, str) for entry in strings):
        raise RequestError(f"{name} is {shown(value)}.", "Give a string or a list of strings.", param=name)
    if len(strings) > 16 or not all(strings):
        raise RequestError(
            f"{name} has {len(strings)} entries, or an empty one.", "Give 1 to 16 non-empty strings.", param=name
        )
    return tuple(strings)


def token_ids(vocab_size: int) -> Rule:
    """A list of token ids of a vocabulary."""

    def check(name: str, value: object) -> tuple[int, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise RequestError(f"{name} is {shown(value)}.", "Give a list of token ids.", param=name)
        if all(type(entry) is int and 0 <= entry < vocab_size for entry in value):
            return tuple(value)
        return tuple(_token_id(name, entry, vocab_size) for entry in value)

    return check


def logit_bias(vocab_size: int) -> Rule:
    """A mapping from token id (an int, or its decimal digits as JSON has it) to a bias in [-100, 100]."""
    bias_rule = Number(-100, 100)

    def check(name: str, value: object) -> tuple[tuple[int, float], ...]:
        if not isinstance(value, Mapping):
            raise RequestError(f"{name} is {shown(value)}.", "Give an object from token id to bias.", param=name)
        biases = {_token_id(name, token, vocab_size): bias_rule(name, bias) for token, bias in value.items()}
        return tuple(sorted(biases.items()))

    return check


def shown(value: object) -> str:
    """A value as an error message shows it: short, whatever it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _token_id(name: str, value: object, vocab_size: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise RequestError(
            f"{name} has {shown(value)}, which is no token of this model.",
            f"Token ids are whole numbers from 0 to {vocab_size - 1}.",
            param=name,
        )
    return value
