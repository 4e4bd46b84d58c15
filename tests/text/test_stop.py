"""Stop strings over a text in pieces: against a naive search in the whole text, over every way to cut it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.text.stop import StopMatcher
from vivace.types.errors import RequestError

STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)
TEXT = st.text("abc", max_size=14)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Text before the stop string that completes first, the longest of those."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        safe, matched = matcher.feed(piece)
        shown += safe
        if matched:
            assert matcher.finish() == ""
            return shown, True
    return shown + matcher.finish(), False


@given(text=TEXT, stops=STOPS, data=st.data())
def test_any_cut_gives_what_the_whole_text_gives(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert run(pieces, stops) == naive(text, stops)


@given(text=TEXT, stops=STOPS)
def test_no_more_is_held_back_than_could_become_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for end, character in enumerate(text, 1):
        safe, matched = matcher.feed(character)
        shown += safe
        if matched:
            return
        held = text[:end].removeprefix(shown)
        longest = max((k for s in stops for k in range(len(s)) if text[:end].endswith(s[:k])), default=0)
        assert len(held) == longest


def test_nothing_is_shown_after_a_match() -> None:
    matcher = StopMatcher(["\nUser:"])
    assert matcher.feed("Hello\nUs") == ("Hello", False)
    assert matcher.feed("er: hi") == ("", True)
    assert matcher.feed("more") == ("", True)
    assert matcher.matched
    assert matcher.finish() == ""


def test_without_stop_strings_text_passes_through() -> None:
    matcher = StopMatcher([])
    assert matcher.feed("abc") == ("abc", False)
    assert matcher.finish() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(RequestError, match="empty") as refusal:
        StopMatcher(["a", ""])
    assert refusal.value.param == "stop"
