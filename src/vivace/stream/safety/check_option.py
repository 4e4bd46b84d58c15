"""A check as an operator writes it on one line: `external=http://host/check,every=token,timeout=2,fail=open`.

Headers may name variables of the environment (`header=Authorization: Bearer ${KEY}`): a key stands in no command.
"""

import os
import re
from collections.abc import Iterable, Mapping

from vivace.stream.safety.checks import CHECKS, WITH_HEADERS, CheckConfig
from vivace.types.errors import ConfigError

_SETTING = re.compile(r",(?=(?:every|timeout|fail|threshold|model|policy|header)=)")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # a token of RFC 9110
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def parse_check(line: str, environment: Mapping[str, str] = os.environ) -> CheckConfig:
    """The config of a check.

    Args:
        line: "KIND=TARGET", then ",every=token", ",timeout=SECONDS", ",fail=open", ",threshold=NUMBER", ",model=NAME",
            ",policy=TEXT" or ",header=NAME: VALUE" (repeatable).
        environment: has the variables that headers name.

    Raises:
        ConfigError: an unknown kind or setting, a value that cannot be, or a variable that is not set.
    """
    kind, is_given, rest = line.partition("=")
    if not is_given or kind not in CHECKS:
        raise ConfigError(f"There is no check {kind!r}.", f"Write KIND=TARGET; kinds are {', '.join(CHECKS)}.")
    target, *settings = _SETTING.split(rest)
    pairs = [setting.split("=", 1) for setting in settings]
    headers = _headers((value for name, value in pairs if name == "header"), environment)
    if headers and kind not in WITH_HEADERS:
        raise ConfigError(f"A {kind} has no headers.", f"Give them to {' or '.join(WITH_HEADERS)}.")
    given = dict(pairs)
    fail = given.get("fail", "closed")
    if fail not in ("open", "closed"):
        raise ConfigError(f"fail is {fail!r}.", "Use fail=open or fail=closed.")
    defaults = CheckConfig(kind, target)
    return CheckConfig(
        kind,
        target,
        every=given.get("every", defaults.every),
        timeout_s=_number("timeout", given.get("timeout"), defaults.timeout_s),
        fail_open=fail == "open",
        threshold=_number("threshold", given.get("threshold"), defaults.threshold),
        model=given.get("model", defaults.model),
        policy=given.get("policy", defaults.policy),
        headers=headers,
    )


def _headers(lines: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Headers by name. What a variable holds is in no error."""
    headers = {}
    for line in lines:
        name, is_given, written = line.partition(":")
        if not is_given or not _HEADER_NAME.fullmatch(name.strip()):
            raise ConfigError("A header of a check has no name.", "Write header=NAME: VALUE.")
        for variable in _VARIABLE.findall(written):
            if variable not in environment:
                raise ConfigError(f"The variable {variable} is not set.", f"Set it: header {name.strip()} needs it.")
        value = _VARIABLE.sub(lambda found: environment[found[1]], written).strip()
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"The header {name.strip()} holds characters that no header may.", "Use ASCII.")
        headers[name.strip()] = value
    return headers


def _number(name: str, given: str | None, default: float) -> float:
    try:
        return default if given is None else float(given)
    except ValueError:
        raise ConfigError(f"{name} is {given!r}.", "Give a number.") from None
