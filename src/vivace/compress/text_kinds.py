"""What kind of text a piece is, told from its characters: rows of KINDS, the first that matches.

Coarse on purpose: enough to name what a calibration set lacks (code, Chinese, sums), with no model and no data.
"""

import re
from collections.abc import Callable, Sequence

from vivace.compress.calibration_text import LabelledText

_CJK = re.compile(r"[㐀-鿿豈-﫿]")
_KANA_OR_HANGUL = re.compile(r"[぀-ヿ가-힣]")
_OTHER_LETTERS = re.compile(r"[Ͱ-῿]")
_ASCII_WORD = re.compile(r"[A-Za-z]{2,}")
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:def |class |import |from \w+ import|return\b|if .*:$|for .*:$|#include|func |var |let |const |"
    r"public |private |static |//|/\*|<\w+[ >])|\w+\([^)]*\)\s*[;{:]?\s*$|^\s*\w+\s*[-+*/]?=\s*\S",
    re.M,
)
_ANY_LINE = re.compile(r"\S.*")
_PIECE = 2000  # characters: pieces that long texts are cut into before they are labelled


def kind_of(text: str) -> str:
    """The name of the first row of KINDS that matches."""
    return next(name for name, matches in KINDS if matches(text))


def relabelled(texts: Sequence[LabelledText]) -> list[LabelledText]:
    """The same texts in pieces, labelled by their kind, so that a mix can be drawn by kinds."""
    pieces = [text.text[start : start + _PIECE] for text in texts for start in range(0, len(text.text), _PIECE)]
    return [LabelledText(kind_of(piece), piece) for piece in pieces if piece.strip()]


def _share(pattern: re.Pattern[str], text: str) -> float:
    return sum(map(len, pattern.findall(text))) / max(len(text), 1)


def _is_chinese(text: str) -> bool:
    return _share(_CJK, text) > 0.2 and _share(_KANA_OR_HANGUL, text) < 0.05


def _is_another_script(text: str) -> bool:
    return _share(_OTHER_LETTERS, text) > 0.3 or _share(_KANA_OR_HANGUL, text) > 0.05


def _is_code(text: str) -> bool:
    lines = len(_ANY_LINE.findall(text))
    return lines >= 4 and len({match.start() for match in _CODE_LINE.finditer(text)}) > 0.4 * lines


def _is_sums(text: str) -> bool:
    return _share(re.compile(r"[\d+\-*/=<>%$]"), text) > 0.2


KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Chinese", _is_chinese),
    ("other scripts", _is_another_script),
    ("code", _is_code),
    ("sums", _is_sums),
    ("prose", lambda text: True),
)
"""(name, whether a text is of it)."""
