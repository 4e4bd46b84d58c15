"""Streaming text: the pieces add up to the whole, and each is final."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import text_vocabularies as make
from vivace.text.build import build_tokenizer
from vivace.text.detokenize import IncrementalDetokenizer
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import TokenizerError

BYTE_LEVEL = build_tokenizer(make.byte_level())
SENTENCEPIECE = build_tokenizer(make.sentencepiece())
TOKENIZERS = [BYTE_LEVEL, SENTENCEPIECE]
IDS = st.lists(st.integers(0, 270), max_size=40)


def stream(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    return [*(detokenizer.add(token_id) for token_id in ids), detokenizer.flush()]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["byte level", "sentencepiece"])
@given(ids=IDS, skip_special=st.booleans())
def test_pieces_of_any_ids_add_up_to_their_decoding(tokenizer: Tokenizer, ids: list[int], skip_special: bool) -> None:
    pieces = stream(tokenizer, ids, skip_special=skip_special)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip_special)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["byte level", "sentencepiece"])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\ufffd"), max_size=30))
def test_pieces_of_a_text_never_hold_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    pieces = stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert pieces[-1] == ""


@given(ids=IDS)
def test_never_more_than_three_bytes_are_held_back(ids: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(BYTE_LEVEL)
    shown, data = "", b""
    for token_id in ids:
        shown += detokenizer.add(token_id)
        data += BYTE_LEVEL.token_bytes(token_id)
        assert data.decode("utf-8", "replace").startswith(shown)
        assert len(data.decode("utf-8", "replace")) - len(shown) <= 3


def test_an_emoji_comes_with_its_last_byte() -> None:
    ids = BYTE_LEVEL.encode("a😀b")
    assert stream(BYTE_LEVEL, ids) == ["a", "", "", "", "😀", "b", ""]
    assert stream(BYTE_LEVEL, ids[:3]) == ["a", "", "", "\ufffd"]


def test_the_leading_blank_stays_when_the_ids_continue_a_text() -> None:
    ids = SENTENCEPIECE.encode("hello world", add_special=False)
    assert "".join(stream(SENTENCEPIECE, ids)) == "hello world"
    assert "".join(stream(SENTENCEPIECE, ids, continues=True)) == " hello world"


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        IncrementalDetokenizer(BYTE_LEVEL).add(1 << 20)
