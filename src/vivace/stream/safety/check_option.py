"""A check as an operator writes it on one line: `external=http://host/check,every=token,timeout=2,fail=open`."""

import re

from vivace.stream.safety.checks import CHECKS, CheckConfig
from vivace.types.errors import ConfigError

_SETTING = re.compile(r",(?=(?:every|timeout|fail|threshold|model|policy)=)")


def parse_check(line: str) -> CheckConfig:
    """The config of a check.

    Args:
        line: "KIND=TARGET", then ",every=token", ",timeout=SECONDS", ",fail=open", ",threshold=NUMBER", ",model=NAME"
            or ",policy=TEXT".

    Raises:
        ConfigError: an unknown kind or setting, or a value that cannot be.
    """
    kind, is_given, rest = line.partition("=")
    if not is_given or kind not in CHECKS:
        raise ConfigError(f"There is no check {kind!r}.", f"Write KIND=TARGET; kinds are {', '.join(CHECKS)}.")
    target, *settings = _SETTING.split(rest)
    given = dict(setting.split("=", 1) for setting in settings)
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
    )


def _number(name: str, given: str | None, default: float) -> float:
    try:
        return default if given is None else float(given)
    except ValueError:
        raise ConfigError(f"{name} is {given!r}.", "Give a number.") from None
