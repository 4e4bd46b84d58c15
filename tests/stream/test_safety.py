"""Safety filters: nothing disallowed leaves, for any split; nothing else is changed; little is held back."""

import random
import re
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.stream.safety.expressions import Expression
from vivace.stream.safety.matches import Rule
from vivace.stream.safety.rows import PATTERNS, is_chinese_id, is_iban, is_luhn, named_patterns
from vivace.stream.safety.screen import SafetyConfig, SafetyRules, ScreenStage
from vivace.stream.safety.terms import BlockedTerms
from vivace.types.answer import AnswerChunk
from vivace.types.errors import ConfigError

TERMS = ("bad", "badger", "cab", "敏感", "敏感词语", "very bad thing", "straße")
RULES = {
    action: SafetyRules(SafetyConfig(blocked_terms=TERMS, patterns=("personal", "secrets"), action=action))
    for action in ("stop", "mask", "replace")
}
EXAMPLES = {
    "email": "jane.doe+x@mail.example.co.uk",
    "phone_cn": "+86 138-1234-5678",
    "phone_international": "+1 (555) 010-9999",
    "identity_cn": "11010519491231002X",
    "social_security_us": "123-45-6789",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "secret_api_key": "sk-" + "a1B2" * 6,
    "secret_aws": "AKIA" + "ABCD1234" * 2,
    "secret_github": "ghp_" + "a1" * 18,
    "secret_slack": "xoxb-" + "12345-abcde",
    "secret_google": "AIza" + "aB3_-" * 7,
    "secret_jwt": "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "private_key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


def split(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(edges)]


def stream(rules: SafetyRules, pieces: list[str]) -> tuple[str, bool]:
    screen = rules.screen()
    shown = "".join([screen.feed(piece) for piece in pieces]) + screen.finish()
    return shown, screen.has_stopped


@pytest.mark.parametrize("action", RULES)
@given(
    parts=st.lists(
        st.sampled_from(
            [*TERMS, *EXAMPLES.values(), *"abder 词 ", "BAD", "b\u00adad", "\u200b", "ＢＡＤ", "@", "1", "sk-"]
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=30),
)
def test_the_outcome_depends_on_the_text_alone(action: str, parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    rules = RULES[action]
    whole, has_stopped = rules.screened(text)
    assert stream(rules, split(text, cuts)) == (whole, has_stopped)
    assert stream(rules, list(text)) == (whole, has_stopped)
    screen = rules.screen()
    shown = ""
    for piece in split(text, cuts):
        shown += screen.feed(piece)
        assert whole.startswith(shown)


@given(st.lists(st.sampled_from([*"abcgre敏感词语", " "]), max_size=30).map("".join))
def test_masked_places_are_those_that_a_naive_search_finds(text: str) -> None:
    terms = ("bad", "badger", "cab", "敏感", "敏感词语")
    masked = list(text)
    for term in terms:
        bound = r"(?<![a-z])" if term.isascii() else ""
        after = r"(?![a-z])" if term.isascii() else ""
        for match in re.finditer(f"(?=({bound}{term}{after}))", text):
            masked[match.start() : match.start() + len(term)] = "*" * len(term)
    assert SafetyRules(SafetyConfig(blocked_terms=terms)).screened(text)[0] == "".join(masked)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a bad day", "a *** day"),
        ("a BaD day", "a *** day"),
        ("embadded", "embadded"),
        ("badger", "******"),
        ("good很bad的", "good很***的"),
        ("b\u200ba\u00add!", "*****!"),
        ("ｂａｄ", "***"),
        ("very  bad\nthing", "***************"),
        ("这是敏感词。", "这是**词。"),
        ("STRASSE", "*******"),
        ("12 4111-1111-1111-1111.", "12 *******************."),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("mail jane@example.org.", "mail ****************."),
        ("see v1.2.3@home", "see v1.2.3@home"),
    ],
)
def test_masking(text: str, shown: str) -> None:
    assert RULES["mask"].screened(text) == (shown, False)


def test_stopping_and_replacing() -> None:
    assert RULES["stop"].screened("a good and bad day") == ("a good and ", True)
    assert RULES["replace"].screened("a bad day") == ("a [removed] day", False)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_finds_its_example_alone_and_in_text(name: str) -> None:
    rules = SafetyRules(SafetyConfig(patterns=(name,), action="replace", replacement="#"))
    for before, after in (("", ""), ("see ", " now"), ("请看：", "。"), ("(", ")")):
        assert rules.screened(before + EXAMPLES[name] + after)[0] == f"{before}#{after}", (before, after)


def test_check_digits() -> None:
    assert is_luhn("4111111111111111") and not is_luhn("4111111111111112") and not is_luhn("0" * 16)
    assert is_chinese_id("11010519491231002X") and not is_chinese_id("110105194912310021")
    assert is_iban("GB82WEST12345698765432") and not is_iban("GB83WEST12345698765432")


def test_only_a_proper_prefix_is_held_back() -> None:
    screen = SafetyRules(SafetyConfig(blocked_terms=TERMS)).screen()
    for piece, shown, held in (
        ("hello", "hello", 0),
        (" ba", " ", 2),
        ("x", "bax", 0),
        ("敏", "", 1),
        ("锐", "敏锐", 0),
    ):
        assert (screen.feed(piece), screen.num_held) == (shown, held), piece


def test_a_choice_that_is_stopped_ends_once_and_tells_why() -> None:
    stage = ScreenStage(RULES["stop"])
    chunks = [AnswerChunk(choice, piece, (1,)) for piece in ("so b", "ad ", "more") for choice in (0, 1)]
    chunks[5] = AnswerChunk(1, "", finish_reason="stop")
    out = [chunk for chunk in chunks for chunk in stage.feed(chunk)]
    assert "".join(chunk.text for chunk in out if chunk.choice == 0) == "so "
    assert [chunk.finish_reason for chunk in out if chunk.finish_reason] == ["content_filter"] * 2


LITERALS = st.text("abc", min_size=1, max_size=3)
EXPRESSIONS = st.recursive(
    LITERALS | st.sampled_from(["[ab]", "[^a]", "."]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{1,3}", "{0,2}", "{2,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=5,
)


@given(EXPRESSIONS, st.text("abcd", max_size=10))
def test_expressions_match_what_the_standard_library_matches(pattern: str, text: str) -> None:
    try:
        subset = Expression(pattern).start
    except ConfigError:
        assert re.fullmatch(pattern, "") is not None
        return
    for char in text:
        following = subset.step(char)
        if following is None:
            assert re.fullmatch(pattern, text) is None
            return
        subset = following
    assert subset.accepts == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize(
    "pattern", ["(a", "a)", "[a", "a{2", "a{3,2}", "a{0}", "*", "a**", "(?=a)", r"\b", "^a", "a?", "", "a{9999}", "\\"]
)
def test_expressions_outside_the_language_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        Expression(pattern)


def test_settings_that_can_never_work_are_refused() -> None:
    for config in (
        SafetyConfig(blocked_terms=("",)),
        SafetyConfig(blocked_terms=("\u200b",)),
        SafetyConfig(blocked_terms=("x" * 300,)),
        SafetyConfig(patterns=("telepathy",)),
        SafetyConfig(action="frown"),
    ):
        with pytest.raises(ConfigError):
            SafetyRules(config)


def test_time_is_linear_in_a_text_made_to_hurt() -> None:
    """No timing: the number of starts that are followed stays bounded, whatever comes."""
    for name, hurtful in (("email", "a." * 2000), ("card", "1 " * 2000), ("secret_jwt", "eyJ" * 2000)):
        [pattern] = named_patterns([name], Rule("x"))
        matcher = pattern.matcher()
        for char in hurtful:
            matcher.feed(char)
            assert len(matcher._alive) <= 80, name
    matcher_of_terms = BlockedTerms(["a" * 200], Rule("x")).matcher()
    matcher_of_terms.feed("a" * 10_000)
    assert matcher_of_terms.open_from >= 10_000 - 200


def planted(rng: random.Random) -> tuple[str, list[str]]:
    """A text in English or Chinese with violations in it, and those."""
    filler = rng.choice((["the ", "weather ", "is ", "fine, ", "so "], ["今天", "天气", "很", "好，", "所以"]))
    violations = [rng.choice((*TERMS[:2], *TERMS[3:5], *EXAMPLES.values())) for _ in range(rng.randint(1, 2))]
    parts = [rng.choice(filler) for _ in range(rng.randint(2, 12))]
    for violation in violations:
        parts.insert(rng.randint(0, len(parts)), f" {violation} ")
    return "".join(parts), violations


def test_five_thousand_planted_violations_do_not_leak_and_delay_little() -> None:
    rng = random.Random(18)
    num_planted, delays = 0, []
    while num_planted < 5000:
        text, violations = planted(rng)
        num_planted += len(violations)
        screen = RULES["mask"].screen()
        shown, tokens = "", split(text, [rng.randint(0, len(text)) for _ in range(len(text) // 3)])
        waiting: list[tuple[int, int]] = []  # (characters up to the end of a token, its number)
        for number, token in enumerate(tokens):
            shown += screen.feed(token)
            waiting.append((sum(map(len, tokens[: number + 1])), number))
            delays += [number - sent for end, sent in waiting if end <= len(shown)]
            waiting = [row for row in waiting if row[0] > len(shown)]
        shown += screen.finish()
        assert len(shown) == len(text)
        for violation in violations:
            assert violation not in shown
    assert median(delays) <= 2
