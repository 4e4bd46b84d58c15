"""Sizes as people write them on a command line: 70B parameters, 16GiB of memory."""

import re

from vivace.types.errors import ConfigError

_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_BYTES = {
    **{f"{prefix}B": 1000.0**power for power, prefix in enumerate(["", "K", "M", "G", "T"])},
    **{f"{prefix}iB": 1024.0**power for power, prefix in enumerate(["", "K", "M", "G", "T"]) if prefix},
}


def read_count(text: str, option: str) -> float:
    """A number such as 70B or 135M.

    Raises:
        ConfigError: it is none; the message names the option.
    """
    return _read(text, {name.lower(): value for name, value in _COUNTS.items()}, option, "70B or 135M")


def read_bytes(text: str, option: str) -> int:
    """A size such as 16GiB or 500MB.

    Raises:
        ConfigError: it is none; the message names the option.
    """
    return int(_read(text, {name.lower(): value for name, value in _BYTES.items()}, option, "16GiB or 500MB"))


def _read(text: str, units: dict[str, float], option: str, example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ConfigError(f"{option} is {text!r}.", f"Write a size such as {example}.")
    return float(match[1]) * units[match[2].lower()]
