"""Where a text that still grows may be cut without tearing a character that a person sees as one.

Clusters are those of Unicode's UAX 29 (`\\X` of the `regex` package). The last cluster of a growing text may yet
grow. It is held back only where text as people write it does so: emoji, flags, CR LF, Hangul jamo and scripts that
stack marks. A combining mark after a plain letter or digit is the exception: holding every last letter would delay all
text by one token for the sake of decomposed accents and keycaps.
"""

import regex

MAX_CLUSTER = 64
"""A longer cluster is not waited for; no script makes one, and memory per reader stays bounded."""

_CLUSTER = regex.compile(r"\X")
_OPEN = regex.compile(
    r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\u200d\ufe0f\r\p{GCB=Prepend}\p{GCB=L}\p{GCB=V}"
    r"\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}"
    r"\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Thai}\p{Script=Lao}"
    r"\p{Script=Tibetan}\p{Script=Myanmar}\p{Script=Khmer}\p{Script=Arabic}\p{Script=Hebrew}]"
    r"|^\p{Regional_Indicator}$"
)


def clusters(text: str) -> list[str]:
    """The grapheme clusters of a text."""
    return list(_CLUSTER.findall(text))


def settled_length(text: str) -> int:
    """Length of the longest prefix of a growing text whose last cluster will not grow any more.

    Blanks before a cluster that is held are held with it: as a token, " 🎉" is one piece.
    """
    if not text:
        return 0
    tail = text[-2 * MAX_CLUSTER :]  # long enough to hold the last cluster; a cut inside an earlier one does not matter
    last = _CLUSTER.findall(tail)[-1]
    if len(last) >= MAX_CLUSTER or not _OPEN.search(last):
        return len(text)
    return len(text[: -len(last)].rstrip(" "))
