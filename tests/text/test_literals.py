"""Finding control tokens: the leftmost first, the longest of those."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.text.literals import LiteralMatcher

LITERALS = st.sets(st.text("ab<", min_size=1, max_size=4), max_size=8)


@given(literals=LITERALS, text=st.text("ab<c", max_size=30))
def test_occurrences_are_those_of_an_alternation_sorted_by_length(literals: set[str], text: str) -> None:
    ids = {literal: number for number, literal in enumerate(sorted(literals))}
    pattern = "|".join(map(re.escape, sorted(literals, key=len, reverse=True)))
    expected = [(m.start(), m.end(), ids[m.group()]) for m in re.finditer(pattern, text)] if literals else []
    assert list(LiteralMatcher(ids).find(text)) == expected


@given(literals=LITERALS, text=st.text("ab<c", max_size=30))
def test_starts_are_all_starts(literals: set[str], text: str) -> None:
    matcher = LiteralMatcher(dict.fromkeys(literals, 0))
    assert list(matcher.starts(text)) == [i for i in range(len(text)) if any(text.startswith(s, i) for s in literals)]


def test_an_empty_literal_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="empty"):
        LiteralMatcher({"": 1})
