"""Joining by score: against a naive reading of SentencePiece's algorithm, over random vocabularies."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import text_vocabularies as make
from vivace.text.build import build_tokenizer
from vivace.text.sentencepiece import SentencePieceEncoder
from vivace.types.errors import TokenizerError

LETTERS = "ab▁c"
PIECES = st.dictionaries(
    st.text(LETTERS, min_size=2, max_size=5),
    st.integers(-6, 0).map(float),  # few values, so that scores are often equal
    max_size=30,
)


def naive(text: str, scores: dict[str, float]) -> list[str]:
    """Join the best-scored neighbours, the leftmost among equals, until no join is a piece."""
    symbols = list(text)
    while True:
        joins = [
            (-scores[left + right], at) for at, (left, right) in enumerate(pairwise(symbols)) if left + right in scores
        ]
        if not joins:
            return symbols
        _, at = min(joins)
        symbols[at : at + 2] = ["".join(symbols[at : at + 2])]


def encoder_of(scores: dict[str, float]) -> tuple[SentencePieceEncoder, list[str]]:
    scores = {**dict.fromkeys(LETTERS, -9.0), **scores}
    texts = list(scores)
    pieces = {text: token_id for token_id, text in enumerate(texts)}
    return SentencePieceEncoder(pieces, list(scores.values()), {}, None, None, add_space_prefix=False), texts


@given(scores=PIECES, text=st.text(LETTERS, max_size=20) | st.text(LETTERS, min_size=25, max_size=90))
def test_joins_are_those_of_the_naive_algorithm(scores: dict[str, float], text: str) -> None:
    encoder, texts = encoder_of(scores)
    assert [texts[i] for i in encoder.encode(text, at_start=True)] == naive(text, scores)


@given(scores=PIECES, text=st.text(LETTERS, max_size=40))
def test_both_ways_to_join_agree(scores: dict[str, float], text: str) -> None:
    encoder, _ = encoder_of(scores)
    assert encoder._join_by_scan(text) == encoder._join_by_heap(text)


def test_a_word_is_never_cut_where_a_piece_spans_a_blank() -> None:
    encoder, texts = encoder_of({"a▁": -1.0, "a▁b": -2.0, "▁b": -3.0})
    assert [texts[i] for i in encoder.encode("ca b b", at_start=True)] == ["c", "a▁b", "▁b"]


def test_characters_without_a_piece_fall_back_to_bytes() -> None:
    tokenizer = build_tokenizer(make.sentencepiece(add_space_prefix=False))
    ids = tokenizer.encode("é😀", add_special=False)
    assert [tokenizer.token_bytes(i) for i in ids[1:]] == [b"\xf0", b"\x9f", b"\x98", b"\x80"]


def test_without_bytes_a_run_of_strange_characters_is_one_unknown() -> None:
    tokenizer = build_tokenizer(make.sentencepiece(byte_fallback=False, add_space_prefix=False))
    assert tokenizer.encode("😀😀 😀", add_special=False).count(0) == 2
    ordinary = make.sentencepiece(byte_fallback=False, special_ids={"bos": 1})
    nothing = build_tokenizer(replace(ordinary, token_types=[make.NORMAL] * len(ordinary.tokens)))
    with pytest.raises(TokenizerError, match="no token for '😀'"):
        nothing.encode("😀")


def test_a_blank_is_put_before_a_text_and_taken_away_again() -> None:
    tokenizer = build_tokenizer(make.sentencepiece())
    ids = tokenizer.encode("hello world", add_special=False)
    assert [tokenizer.token_text(i) for i in ids] == ["▁hello", "▁world"]
    assert tokenizer.decode(ids) == "hello world"
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"
    assert tokenizer.encode("", add_special=False) == []


def test_user_defined_pieces_never_join_their_neighbours() -> None:
    pieces = {**dict.fromkeys("abn>", -9.0), "<b>a": -1.0, "\n\na": -1.0, "\n": -8.0}
    tokenizer = build_tokenizer(make.sentencepiece(pieces, add_space_prefix=False))
    ids = tokenizer.encode("<b>a\n\n\na", add_special=False)
    assert [tokenizer.token_text(i) for i in ids] == ["<b>", "a", "\n\n", "\n", "a"]
