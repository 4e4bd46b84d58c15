"""What every tokenizer does alike, whatever vocabulary it was built from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import text_vocabularies as make
from vivace.text.build import build_tokenizer
from vivace.text.tokenizer import Tokenizer, UnencodableTextError
from vivace.types.errors import TokenizerError, UnsupportedModelError

BYTE_LEVEL = build_tokenizer(make.byte_level())
SENTENCEPIECE = build_tokenizer(make.sentencepiece())
BYTE_JSON = build_tokenizer(make.hugging_face(make.tokenizer_json()))
METASPACE_JSON = build_tokenizer(make.hugging_face(make.tokenizer_json("metaspace")))
ALL = {"byte level": BYTE_LEVEL, "sentencepiece": SENTENCEPIECE, "json": BYTE_JSON, "metaspace": METASPACE_JSON}
every_tokenizer = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL.keys())
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=60)


@every_tokenizer
@given(text=TEXT | st.sampled_from(["<|im_end|>", "</s>", "<tool> <b>\n\n", "  hello  world 123 你好", ""]))
def test_decoding_what_was_encoded_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    if tokenizer is METASPACE_JSON:
        text = text.lstrip(" ")  # this kind of pipeline takes a leading blank for its own
    assert tokenizer.decode(tokenizer.encode(text)) == text


@every_tokenizer
@given(text=TEXT)
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    if tokenizer is METASPACE_JSON:
        text = text.lstrip(" ")
    data = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert data.decode() == (" " + text if text and tokenizer.strips_space else text)


@every_tokenizer
def test_control_tokens_are_recognised_only_when_asked_for(tokenizer: Tokenizer) -> None:
    control = "<|im_end|>" if tokenizer in (BYTE_LEVEL, BYTE_JSON) else "</s>"
    control_id = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_text(i) == control)
    text = f"hello{control}world"
    plain = tokenizer.encode(text, add_special=False)
    parsed = tokenizer.encode(text, add_special=False, parse_special=True)
    assert control_id not in plain
    assert parsed.count(control_id) == 1
    assert tokenizer.decode(plain) == text
    assert tokenizer.decode(parsed).replace(" ", "") == "helloworld"
    assert control in tokenizer.decode(parsed, skip_special=False)
    assert tokenizer.is_special(control_id)
    assert tokenizer.token_bytes(control_id) == b""


@every_tokenizer
def test_user_defined_tokens_are_taken_whole_in_any_text(tokenizer: Tokenizer) -> None:
    text, token_id = ("<tool>", 3) if tokenizer in (BYTE_LEVEL, BYTE_JSON) else ("<b>", 5)
    ids = tokenizer.encode(f"a{text}b", add_special=False)
    assert token_id in ids
    assert not tokenizer.is_special(token_id)
    assert tokenizer.token_bytes(token_id) == text.encode()


@every_tokenizer
def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UnencodableTextError, match=r"U\+D800, at character 2") as refusal:
        tokenizer.encode("ab\ud800c")
    assert refusal.value.http_status == 400
    assert isinstance(refusal.value, TokenizerError)


@every_tokenizer
@pytest.mark.parametrize("token_id", [-1, 1 << 20, -(1 << 40)])
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, token_id: int) -> None:
    for call in (tokenizer.token_bytes, tokenizer.token_text, tokenizer.is_special):
        with pytest.raises(TokenizerError, match="not in the vocabulary"):
            call(token_id)
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tokenizer.decode([0, token_id])


def test_begin_and_end_tokens_are_added_as_the_file_says() -> None:
    source = make.sentencepiece(add_bos=True, add_eos=True)
    tokenizer = build_tokenizer(source)
    plain = tokenizer.encode("hello", add_special=False)
    assert tokenizer.encode("hello") == [1, *plain, 2]
    assert tokenizer.adds_bos
    without = build_tokenizer(replace(source, add_bos=False, add_eos=False))
    assert without.encode("hello") == plain
    assert not without.adds_bos
    assert build_tokenizer(replace(source, special_ids={"unknown": 0})).encode("hello") == plain


def test_every_known_end_of_turn_ends_an_answer() -> None:
    assert BYTE_LEVEL.eos_ids == {0, 2}
    assert BYTE_LEVEL.eos_id == 2
    assert SENTENCEPIECE.eos_ids == {2, 3}
    with_turn = make.byte_level(special_ids={"eos": 0, "eot": 1})
    assert build_tokenizer(with_turn).eos_ids == {0, 1, 2}


def test_a_turn_marker_written_as_user_defined_is_a_control_token_all_the_same() -> None:
    source = make.byte_level()
    types = [make.USER_DEFINED, *source.token_types[1:]]  # <|endoftext|>
    tokenizer = build_tokenizer(replace(source, token_types=types))
    assert tokenizer.is_special(0)
    assert 0 in tokenizer.eos_ids
    assert 0 not in tokenizer.encode("a<|endoftext|>b")


def test_tokens_that_templates_name_are_spelled_out() -> None:
    assert BYTE_LEVEL.named_tokens == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }


def test_token_text_is_the_entry_of_the_file() -> None:
    ids = BYTE_LEVEL.encode(" hello")
    assert [BYTE_LEVEL.token_text(i) for i in ids] == ["Ġhello"]
    assert [BYTE_LEVEL.token_bytes(i) for i in ids] == [b" hello"]
    assert SENTENCEPIECE.token_text(6) == "<0x00>"
    assert SENTENCEPIECE.token_bytes(6) == b"\0"


def test_bytes_that_are_no_text_decode_to_replacement_characters() -> None:
    byte = {BYTE_LEVEL.token_bytes(i): i for i in range(BYTE_LEVEL.vocab_size)}
    ids = [byte[b"\xe4"], byte[b"\xbd"], byte[b"a"], byte[b"\xff"]]
    assert BYTE_LEVEL.decode(ids) == b"\xe4\xbda\xff".decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("vocabulary", "error", "said"),
    [
        (make.byte_level(tokens=[]), TokenizerError, "holds no vocabulary"),
        (make.byte_level(token_types=[1]), TokenizerError, "1 token types for"),
        (make.byte_level(merges=[]), TokenizerError, "without merges"),
        (make.byte_level(merges=["ab"]), TokenizerError, "broken merge 'ab'"),
        (make.byte_level(merges=["q z"]), TokenizerError, "do not fit its tokens"),
        (make.byte_level(merges=[" a"]), TokenizerError, "do not fit its tokens"),
        (make.byte_level(special_ids={"eos": 1 << 20}), TokenizerError, "eos token of the model file"),
        (make.byte_level(pre="klingon"), UnsupportedModelError, "pre-tokenizer 'klingon'"),
        (make.byte_level(model="bert"), UnsupportedModelError, "of the kind 'bert'"),
        (make.sentencepiece(scores=[0.0]), TokenizerError, "1 scores for"),
        (make.sentencepiece({"a": float("nan")}), TokenizerError, "not all numbers"),
    ],
)
def test_broken_vocabularies_are_refused_in_one_sentence(
    vocabulary: make.GgufVocabulary, error: type[TokenizerError], said: str
) -> None:
    with pytest.raises(error, match=said) as refusal:
        build_tokenizer(vocabulary)
    assert refusal.value.mend


def test_a_byte_token_that_is_none_is_refused() -> None:
    source = make.sentencepiece()
    tokens = ["<0xZZ>" if text == "<0x41>" else text for text in source.tokens]
    with pytest.raises(TokenizerError, match="<0xZZ>"):
        build_tokenizer(replace(source, tokens=tokens))


def test_a_vocabulary_without_token_types_is_all_ordinary_tokens() -> None:
    tokenizer = build_tokenizer(make.byte_level(token_types=[]))
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"
