"""The patterns that come with vivace: personal data and secrets. A kind is a row of PATTERNS."""

from collections.abc import Iterable
from dataclasses import dataclass

from vivace.stream.safety.expressions import CharSet, Expression
from vivace.stream.safety.matches import Rule
from vivace.stream.safety.patterns import Check, Pattern
from vivace.types.errors import ConfigError

_ALPHANUMERIC = CharSet(frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"))
_DIGITS = CharSet(frozenset("0123456789"))
_NOTHING = CharSet(frozenset())


def is_luhn(text: str) -> bool:
    """Whether the digits of a payment card number end in the right check digit (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in text if char in _DIGITS]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and any(digits)


def is_chinese_id(text: str) -> bool:
    """Whether an 18-character Chinese identity number ends in the right check character (GB 11643-1999)."""
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


def is_iban(text: str) -> bool:
    """Whether an international bank account number has the right check digits (ISO 13616)."""
    compact = text.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: str
    not_beside: CharSet = _ALPHANUMERIC
    check: Check | None = None


PATTERNS: dict[str, _Row] = {
    "email": _Row(r"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@(?:[A-Za-z0-9\-]{1,63}\.){1,6}[A-Za-z]{2,24}"),
    "phone_cn": _Row(r"(?:\+?86[ \-]?)?1[3-9]\d[ \-]?\d{4}[ \-]?\d{4}", _DIGITS),
    "phone_international": _Row(r"\+[1-9]\d{0,2}[ \-]?(?:\(\d{1,4}\)[ \-]?)?\d(?:[ \-]?\d){5,11}", _DIGITS),
    "identity_cn": _Row(r"[1-9]\d{16}[\dXx]", _ALPHANUMERIC, is_chinese_id),
    "social_security_us": _Row(r"\d{3}-\d{2}-\d{4}", _DIGITS),
    "card": _Row(r"\d(?:[ \-]?\d){12,18}", _DIGITS, is_luhn),
    "iban": _Row(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", _ALPHANUMERIC, is_iban),
    "secret_api_key": _Row(r"sk-[A-Za-z0-9_\-]{20,}"),
    "secret_aws": _Row(r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    "secret_github": _Row(r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    "secret_slack": _Row(r"xox[abprs]-[A-Za-z0-9\-]{10,}"),
    "secret_google": _Row(r"AIza[A-Za-z0-9_\-]{35}"),
    "secret_jwt": _Row(r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+"),
    "private_key": _Row(r"-----BEGIN (?:[A-Z]{2,16} ){0,3}PRIVATE KEY-----", _NOTHING),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "personal": ("email", "phone_cn", "phone_international", "identity_cn", "social_security_us", "card", "iban"),
    "secrets": tuple(name for name in PATTERNS if name.startswith(("secret_", "private_"))),
}
"""Names that stand for several rows."""


def named_patterns(names: Iterable[str], rule: Rule) -> list[Pattern]:
    """Rows of PATTERNS, by name or by the name of a group.

    Raises:
        ConfigError: there is no such row.
    """
    rows: dict[str, None] = {}
    for name in names:
        if name not in PATTERNS and name not in GROUPS:
            raise ConfigError(f"There is no pattern {name!r}.", f"Known are: {', '.join((*GROUPS, *PATTERNS))}.")
        rows.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return [_compile(name, PATTERNS[name], rule) for name in rows]


def _compile(name: str, row: _Row, rule: Rule) -> Pattern:
    named = Rule(name, rule.action, rule.replacement)
    return Pattern(Expression(row.pattern), named, row.not_beside, row.check)
