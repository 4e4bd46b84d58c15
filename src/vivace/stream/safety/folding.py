"""Characters as filters compare them, one at a time, so that folding never depends on how a text was cut."""

import unicodedata
from functools import lru_cache

_CJK_RANGES = (
    (0x2E80, 0x2FDF),
    (0x3000, 0x31BF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@lru_cache(maxsize=65536)
def fold(char: str) -> str:
    """Compatibility-decomposed and case-folded; any blank is one space; invisible format characters are nothing."""
    if char.isspace():
        return " "
    if is_invisible(char):
        return ""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())


@lru_cache(maxsize=65536)
def narrow(char: str) -> str:
    """Full-width ASCII as ASCII, everything else as it is; always one character."""
    code = ord(char)
    return chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else char


@lru_cache(maxsize=65536)
def is_invisible(char: str) -> bool:
    """Whether a character shows nothing and only steers layout (soft hyphen, zero-width space and joiner ...)."""
    return unicodedata.category(char) == "Cf"


@lru_cache(maxsize=65536)
def is_word_char(char: str) -> bool:
    """Whether a character belongs to a word whose limits matter: letters and digits of scripts with blanks."""
    code = ord(char)
    return char.isalnum() and not any(low <= code <= high for low, high in _CJK_RANGES)
