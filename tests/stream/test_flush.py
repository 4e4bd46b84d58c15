"""Flush policies, grapheme clusters and coalescing: nothing is lost, nothing is torn."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.stream.checkpoints import CONTEXT_CHARS, SentenceMarks
from vivace.stream.coalesce import Coalescer
from vivace.stream.flush import (
    FLUSH_POLICIES,
    MAX_SENTENCE,
    FlushStage,
    after_sentence,
    after_word,
    flush_policy,
    sentence_ends,
)
from vivace.stream.graphemes import clusters, settled_length
from vivace.types.answer import AnswerChunk
from vivace.types.errors import RequestError

WHOLE = [
    "👩‍👩‍👧",
    "👍🏽",
    "🇨🇳",
    "🇩🇪",
    "❤️",
    "한",
    "\r\n",
    "नमस्ते",
    "กำ",
    "你",
    "好",
    "。",
    "a",
    "word ",
    "Hi. ",
    "!",
    "\n",
    "é",
]
texts = st.lists(st.sampled_from(WHOLE), max_size=12).map("".join)


def split(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(edges)]


def stream(policy: str, pieces: list[str]) -> list[AnswerChunk]:
    stage = FlushStage(FLUSH_POLICIES[policy])
    chunks = [AnswerChunk(0, piece, (number,)) for number, piece in enumerate(pieces)]
    chunks.append(AnswerChunk(0, "", finish_reason="stop"))
    return [out for chunk in chunks for out in stage.feed(chunk)]


@pytest.mark.parametrize("policy", FLUSH_POLICIES)
@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_the_text_is_unchanged_and_no_cluster_is_torn(policy: str, text: str, cuts: list[int]) -> None:
    pieces = split(text, cuts)
    chunks = stream(policy, pieces)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [token for chunk in chunks for token in chunk.token_ids] == list(range(len(pieces)))
    boundaries = {0}
    for cluster in clusters(text):
        boundaries.add(max(boundaries) + len(cluster))
    at = 0
    for chunk in chunks:
        at += len(chunk.text)
        assert at in boundaries


@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=20), st.sampled_from(sorted(FLUSH_POLICIES)))
def test_any_text_at_all_comes_out_unchanged(text: str, cuts: list[int], policy: str) -> None:
    assert "".join(chunk.text for chunk in stream(policy, split(text, cuts))) == text


def test_plain_text_is_never_held_back_by_clusters() -> None:
    for text in ("Hello", "你好", "1", "Grüße", "かな", "x.", " "):
        assert settled_length(text) == len(text)
    assert settled_length("ok 👩") == 2
    assert settled_length("🇨") == 0
    assert settled_length("🇨🇳") == 2
    assert settled_length("👩" + "\u200d" * 100) == 101  # no cluster is waited for without end


@pytest.mark.parametrize(
    ("text", "released"),
    [
        ("Hello wor", "Hello "),
        ("Hello", ""),
        ("你好吗", "你好吗"),
        ("用GP", "用"),
        ("don't sto", "don't "),
        ("x" * 100, "x" * 100),
    ],
)
def test_word_policy(text: str, released: str) -> None:
    assert text[: after_word(text)] == released


@pytest.mark.parametrize(
    ("text", "released"),
    [
        ("One. Two", "One."),
        ("Pi is 3.14 and", ""),
        ("Dr. Smith", ""),
        ("1. First", ""),
        ("你好。他说：“走吧！”然后", "你好。他说：“走吧！”"),
        ("你好。", ""),
        ("Really?! Yes", "Really?!"),
        ("line\nnext", "line\n"),
    ],
)
def test_sentence_policy(text: str, released: str) -> None:
    assert text[: after_sentence(text)] == released


def test_an_endless_sentence_is_not_waited_for() -> None:
    text = "word " * (MAX_SENTENCE // 4)
    assert after_sentence(text) == len(text)


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(RequestError, match="token, word, sentence"):
        flush_policy("paragraph")


def test_clusters_are_those_of_the_standard() -> None:
    assert clusters("👩‍👩‍👧🇨🇳한e\u0301") == ["👩‍👩‍👧", "🇨🇳", "한", "e\u0301"]


@given(st.lists(st.tuples(st.floats(0, 0.03), st.integers(0, 1)), max_size=40))
def test_coalescing_keeps_order_and_bounds_and_never_delays_the_first(arrivals: list[tuple[float, int]]) -> None:
    coalescer, now, sends = Coalescer(), 0.0, []
    for number, (gap, choice) in enumerate(arrivals):
        now += gap
        if coalescer.due_s is not None and coalescer.due_s <= now:
            sends.append((coalescer.due_s, coalescer.take(coalescer.due_s)))
        sends.append((now, coalescer.offer(AnswerChunk(choice, f"{number},", (number,)), now)))
        if number == 0:
            assert sends[-1][1], "the first token waits for nothing"
        assert sum(len(chunk.token_ids) for chunk in coalescer.held) < coalescer.max_tokens
    sends.append((now, coalescer.take(now)))
    for choice in (0, 1):
        mine = [chunk for _, send in sends for chunk in send if chunk.choice == choice]
        expected = [number for number, (_, row) in enumerate(arrivals) if row == choice]
        assert [token for chunk in mine for token in chunk.token_ids] == expected
        assert "".join(chunk.text for chunk in mine) == "".join(f"{number}," for number in expected)


def test_slow_tokens_are_sent_one_by_one_and_the_end_at_once() -> None:
    coalescer = Coalescer()
    assert all(len(coalescer.offer(AnswerChunk(0, "x", (1,)), second)) == 1 for second in range(3))
    assert coalescer.offer(AnswerChunk(0, "y", (1,)), 2.001) == []
    assert coalescer.due_s == pytest.approx(2.010)
    [last] = coalescer.offer(AnswerChunk(0, "z", (2,), finish_reason="stop"), 2.002)
    assert (last.text, last.token_ids, last.finish_reason) == ("yz", (1, 2), "stop")


MARKED = [".", " ", "Mr", "Prof", "12", "A", "a", "。", "!", '"', ")", "\n", "e.g", "word " * 20, " " * 80, "x" * 70]


@given(st.lists(st.sampled_from(MARKED), max_size=14).map("".join), st.lists(st.integers(0, 2000), max_size=12))
def test_checkpoints_are_where_the_sentences_of_the_whole_text_end(text: str, cuts: list[int]) -> None:
    found, at = [], 0
    while end := next(iter(sentence_ends(text[at:])), 0):
        at += end
        found.append(at)
    marks = SentenceMarks()
    assert [mark.offset for piece in split(text, cuts) for mark in marks.feed(piece)] == found


def test_a_text_without_an_end_is_not_kept() -> None:
    marks = SentenceMarks()
    for _ in range(100):
        marks.feed("x" * 1000)
    assert len(marks._tail) <= CONTEXT_CHARS + 1
    assert [mark.offset for mark in marks.feed(".\n")] == [100_001, 100_002]
