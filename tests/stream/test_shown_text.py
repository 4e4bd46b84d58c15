"""What is shown passes the filter that let it through: at every moment, for any terms, any text and any split."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vivace.stream.flush import FLUSH_POLICIES, FlushStage
from vivace.stream.safety.screen import ACTIONS, STARS, SafetyConfig, SafetyRules, ScreenStage
from vivace.stream.stages import through
from vivace.types.answer import AnswerChunk
from vivace.types.errors import ConfigError

SHOWING = ("stop", "mask", "replace")
LETTERS = ("a", "b", "1", "敏", "感", "-", " ", "*", "A", "\u200b")
TERMS = st.lists(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4).map("".join), min_size=1, max_size=4)
PATTERNS = st.sampled_from([(), ("social_security_us",), ("phone_cn", "iban"), ("private_key", "email")])
EXAMPLES = ("123-45-6789", "13812345678", "DE89370400440532013000", "-----BEGIN " + "PRIVATE KEY-----", "a@b.cd", "ab1")
TEXTS = st.lists(st.sampled_from([*LETTERS, *EXAMPLES]), max_size=14).map("".join)


def rules_of(terms: list[str], patterns: tuple[str, ...], action: str) -> SafetyRules:
    try:
        return SafetyRules(SafetyConfig(tuple(terms), patterns, action, "[x]"))
    except ConfigError:
        assume(False)  # a term of blanks alone, or one that is the replacement
        raise


def check_shown(rules: SafetyRules, text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    whole, has_stopped = rules.screened(text)
    assert not rules.holds_match(whole)
    screen, shown = rules.screen(), ""
    for start, end in pairwise(edges):
        shown += screen.feed(text[start:end])
        assert not rules.holds_match(shown), "what is there if the connection breaks now"
        assert whole.startswith(shown)
    shown += screen.finish()
    assert (shown, screen.has_stopped) == (whole, has_stopped)
    assert rules.screened(shown)[0] == shown, "shown text is left as it is"
    if not rules.holds_match(text):
        assert shown == text, "nothing is hidden without a reason"


@pytest.mark.parametrize("action", SHOWING)
@settings(max_examples=150, deadline=None)
@given(terms=TERMS, patterns=PATTERNS, text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=12))
@example(["bad", "1secret"], (), "bad1secret bad", [9])
@example(["bad"], ("phone_cn",), "bad13812345678", [3, 4, 9])
@example(["a1", "敏"], ("phone_cn", "iban"), "13812345678DE89370400440532013000", [11])
@example(["ab", "敏感", "感b"], (), "ab敏感b", [1, 2, 3])
def test_what_is_shown_passes_the_filter(
    action: str, terms: list[str], patterns: tuple[str, ...], text: str, cuts: list[int]
) -> None:
    check_shown(rules_of(terms, patterns, action), text, cuts)


@pytest.mark.slow
@pytest.mark.parametrize("action", SHOWING)
@settings(max_examples=20_000, deadline=None)
@given(terms=TERMS, patterns=PATTERNS, text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_what_is_shown_passes_the_filter_in_many_texts(
    action: str, terms: list[str], patterns: tuple[str, ...], text: str, cuts: list[int]
) -> None:
    check_shown(rules_of(terms, patterns, action), text, cuts)


@pytest.mark.parametrize(
    ("action", "text", "shown"),
    [
        ("mask", "bad13812345678", "**************"),
        ("stop", "so bad13812345678", "so "),
        ("replace", "bad13812345678!", "[removed]!"),
        ("mask", "badly13812345678", "badly***********"),
        ("mask", "13812345678DE89370400440532013000.", "*********************************."),
        ("mask", "bad1", "bad1"),
        ("stop", "a badger13812345678", "a badger"),
    ],
)
def test_a_word_is_one_where_what_follows_it_is_hidden(action: str, text: str, shown: str) -> None:
    rules = SafetyRules(SafetyConfig(("bad",), ("phone_cn", "iban"), action))
    assert rules.screened(text)[0] == shown


def test_a_word_waits_as_long_as_the_letter_after_it_may_be_hidden() -> None:
    screen = SafetyRules(SafetyConfig(("bad", "1secret"), (), "mask")).screen()
    shown = [screen.feed(char) for char in "bad1sec-"]
    assert shown == ["", "", "", "", "", "", "", "bad1sec-"]


def test_stars_are_of_a_kind_that_no_term_holds() -> None:
    assert SafetyRules(SafetyConfig(("f***",))).screened("f*** it") == ("\u2022\u2022\u2022\u2022 it", False)
    assert SafetyRules(SafetyConfig(("敏***", "bad"))).screened("敏bad")[0] == "敏\u2022\u2022\u2022"
    with pytest.raises(ConfigError, match="in the place of"):
        SafetyRules(SafetyConfig((STARS,)))


@pytest.mark.parametrize("replacement", ["", "removed", "[bad]", "]", "1", " [x]", "[x]\u200b"])
def test_a_replacement_that_could_become_a_part_of_something_blocked_is_refused(replacement: str) -> None:
    terms = ("bad", "]", "very bad") if replacement == "]" else ("bad", "very bad")
    with pytest.raises(ConfigError, match="replacement that begins and ends with a sign"):
        SafetyRules(SafetyConfig(terms, (), "replace", replacement))


def test_every_action_takes_part() -> None:
    assert set(ACTIONS) == {*SHOWING, "regenerate"}, "regenerate is held to the same in test_guard.py"


@settings(max_examples=100, deadline=None)
@given(
    flush=st.sampled_from(list(FLUSH_POLICIES)),
    text=st.lists(st.sampled_from(["bad", "b", "ad", "한", "국", "न", "ि", " ", "敏", "感", ". ", "x"]), max_size=14),
)
@example("token", ["bad", "한", " "])
def test_text_is_never_cut_for_sending_where_it_would_be_something_blocked(flush: str, text: list[str]) -> None:
    rules = SafetyRules(SafetyConfig(("bad", "한국", "敏感")))
    stages = (ScreenStage(rules), FlushStage(FLUSH_POLICIES[flush], lambda shown: not rules.holds_match(shown)))
    sent = ""
    for chunk in (*(AnswerChunk(0, piece, (1,)) for piece in text), AnswerChunk(0, "", finish_reason="stop")):
        for ready in through(stages, chunk):
            sent += ready.text
            assert not rules.holds_match(sent)
    assert sent == rules.screened("".join(text))[0]
