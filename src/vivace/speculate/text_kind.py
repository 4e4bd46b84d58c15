"""What kind of text is being written: greeting, factual, creative or code, in English and Chinese.

A handful of patterns and weights, cheap enough to ask again every fifty tokens. The kind is only a prior: it decides
what is expected of drafts before a request has shown how they fare.
"""

import re
from dataclasses import dataclass
from typing import Literal

TextKind = Literal["greeting", "factual", "creative", "code"]


@dataclass(frozen=True, slots=True)
class KindRow:
    """A kind, what the chapter (exercise 4) expects of it, and weighted patterns that speak for it.

    Args:
        kind: its name.
        num_drafts: least and most drafts that the chapter gives it.
        acceptance: the chapter's acceptance of a draft.
        patterns: (weight, pattern); every match counts once, up to MAX_COUNTED of each pattern.
    """

    kind: TextKind
    num_drafts: tuple[int, int]
    acceptance: float
    patterns: tuple[tuple[float, re.Pattern[str]], ...]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.MULTILINE)


KINDS: tuple[KindRow, ...] = (
    KindRow(
        "code",
        (5, 6),
        0.8,
        (
            (3.0, _pattern(r"^\s*(?:def|class|import|from|return|public|static|function|const|#include)\b|```")),
            (1.0, _pattern(r"[;{}]\s*$|\w+\([^)\n]*\)|[=!<>]=|->|=>|\+=")),
            (2.0, _pattern(r"\b(?:python|javascript|java|c\+\+|sql|html|regex|bash|function|script|algorithm)\b")),
            (2.0, _pattern(r"代码|编程|函数|脚本|算法|程序")),
        ),
    ),
    KindRow(
        "creative",
        (2, 3),
        0.5,
        (
            (2.5, _pattern(r"\b(?:story|poem|novel|lyrics|song|imagine|fiction|haiku|tale|compose|blog post|essay)\b")),
            (1.0, _pattern(r"\b(?:write|creative|describe|vivid|once upon)\b")),
            (2.5, _pattern(r"故事|诗|小说|歌词|想象|散文|童话|作文|描写")),
            (1.0, _pattern(r"写一|编一|创作")),
        ),
    ),
    KindRow(
        "greeting",
        (6, 8),
        0.9,
        (
            (
                4.0,
                _pattern(r"^\W*(?:hi|hello|hey|good (?:morning|evening|afternoon)|how are you|thanks?|bye)\b"),
            ),
            (4.0, _pattern(r"^\W*(?:你好|您好|嗨|早上好|晚上好|下午好|谢谢|再见|在吗)")),
        ),
    ),
    KindRow(
        "factual",
        (4, 5),
        0.7,
        (
            (1.5, _pattern(r"\b(?:what|who|when|where|which|how (?:many|much|old|far|long)|why|explain|define)\b")),
            (0.5, _pattern(r"\?")),
            (1.5, _pattern(r"什么|谁|哪|多少|几|为什么|怎么|如何|解释")),
            (0.5, _pattern(r"？")),
        ),
    ),
)
KIND_NAMES: tuple[TextKind, ...] = tuple(row.kind for row in KINDS)
DEFAULT_KIND: TextKind = "factual"
MAX_COUNTED = 6
MAX_CHARACTERS = 1200
GREETING_MAX_CHARACTERS = 80  # a long message that begins with "hello" is about something else
_TURN = re.compile(r"^(?:<[^<>\n]*>)*(?:user|assistant|system|model)$", re.MULTILINE)
_CONTROL = re.compile(r"<\|?[\w/ ]{1,32}\|?>|^(?:user|assistant|system|model)$", re.MULTILINE)


def classify(text: str, otherwise: TextKind = DEFAULT_KIND) -> TextKind:
    """The kind that most speaks for; `otherwise` without any sign.

    Looks at the last turn of a conversation that says something, and of that at the last MAX_CHARACTERS characters.
    """
    turns = [_CONTROL.sub("", turn).strip() for turn in _TURN.split(text[-MAX_CHARACTERS:])]
    shown = next(filter(None, reversed(turns)), "")
    scores = {row.kind: _score(row, shown) for row in KINDS}
    if len(shown) > GREETING_MAX_CHARACTERS:
        scores["greeting"] = 0.0
    best = max(KIND_NAMES, key=lambda kind: scores[kind])
    return best if scores[best] > 0 else otherwise


def _score(row: KindRow, text: str) -> float:
    return sum(weight * min(MAX_COUNTED, len(pattern.findall(text))) for weight, pattern in row.patterns)
