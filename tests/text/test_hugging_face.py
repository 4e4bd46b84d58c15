"""tokenizer.json pipelines: the library's own ids wherever no control token is at stake."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Pipeline

from factories import text_vocabularies as make
from factories.fuzz_text import fuzz_text
from vivace.text.build import build_tokenizer
from vivace.types.errors import TokenizerError, UnsupportedModelError

BYTE_LEVEL = make.tokenizer_json()
METASPACE = make.tokenizer_json("metaspace")
BOS_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
}


@pytest.mark.parametrize("document", [BYTE_LEVEL, METASPACE], ids=["byte level", "metaspace"])
@given(seed=st.integers(0, 10**6))
def test_ids_are_those_of_the_library(document: dict[str, Any], seed: int) -> None:
    ours = build_tokenizer(make.hugging_face(document))
    theirs = Pipeline.from_str(json.dumps(document))
    text = fuzz_text(seed)
    assert ours.encode(text, parse_special=True) == theirs.encode(text).ids
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text).ids


@given(parts=st.lists(st.sampled_from(["hello", " ", "</s>", "<end_of_turn>", "<b>", "the world", "  "]), max_size=6))
def test_only_the_start_of_a_text_gets_a_blank_where_the_pipeline_says_first(parts: list[str]) -> None:
    ours = build_tokenizer(make.hugging_face(METASPACE))
    text = "".join(parts)
    assert ours.encode(text, parse_special=True) == Pipeline.from_str(json.dumps(METASPACE)).encode(text).ids


@given(parts=st.lists(st.sampled_from(["a", " ", "\n", "<|im_end|>", "<|im_start|>"]), max_size=8))
def test_control_tokens_swallow_blanks_as_the_file_says(parts: list[str]) -> None:
    text = "".join(parts)
    added = [
        make.added_token(0, "<|endoftext|>"),
        make.added_token(1, "<|im_start|>", lstrip=True),
        make.added_token(2, "<|im_end|>", rstrip=True),
    ]
    document = {**BYTE_LEVEL, "added_tokens": added}
    theirs = Pipeline.from_str(json.dumps(document))
    assert build_tokenizer(make.hugging_face(document)).encode(text, parse_special=True) == theirs.encode(text).ids


def test_a_post_processor_says_what_is_put_around_a_text() -> None:
    document = {**BYTE_LEVEL, "post_processor": BOS_TEMPLATE}
    config = {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"}
    tokenizer = build_tokenizer(make.hugging_face(document, config=config))
    assert tokenizer.encode("hello")[0] == tokenizer.bos_id == 1
    assert tokenizer.adds_bos
    assert tokenizer.eos_ids == {0, 2}
    assert tokenizer.named_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


@pytest.mark.parametrize(("flag", "prefix"), [(True, [1]), (False, [])])
def test_tokenizer_config_overrules_the_post_processor(flag: bool, prefix: list[int]) -> None:
    for processor in (None, BOS_TEMPLATE):
        document = {**BYTE_LEVEL, "post_processor": processor}
        config = {"bos_token": "<|im_start|>", "add_bos_token": flag}
        tokenizer = build_tokenizer(make.hugging_face(document, config=config))
        plain = tokenizer.encode("hello", add_special=False)
        assert tokenizer.encode("hello") == prefix + plain


def test_ends_of_config_json_end_an_answer_and_are_control_tokens() -> None:
    tokenizer = build_tokenizer(make.hugging_face(BYTE_LEVEL, eos_ids=(3, 2, -1, 1 << 40), bos_id=1))
    assert tokenizer.eos_ids == {0, 2, 3}
    assert tokenizer.eos_id == 3
    assert tokenizer.bos_id == 1
    assert tokenizer.is_special(3)
    assert 3 not in tokenizer.encode("a<tool>b")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": "1.0"}', "\0"])
def test_a_broken_file_is_refused(text: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        build_tokenizer(make.HuggingFaceVocabulary(tokenizer_json=text, config={}))


def test_a_named_token_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TokenizerError, match="names '<nowhere>' as eos_token"):
        build_tokenizer(make.hugging_face(BYTE_LEVEL, config={"eos_token": "<nowhere>"}))


def test_decoders_of_other_families_are_refused() -> None:
    document = {**BYTE_LEVEL, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    with pytest.raises(UnsupportedModelError, match="decodes by WordPiece"):
        build_tokenizer(make.hugging_face(document))
    with pytest.raises(UnsupportedModelError, match="decodes by nothing"):
        build_tokenizer(make.hugging_face({**BYTE_LEVEL, "decoder": None}))


def test_truncation_and_padding_of_the_file_are_ignored() -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    tokenizer = build_tokenizer(make.hugging_face({**BYTE_LEVEL, "truncation": truncation}))
    assert tokenizer.decode(tokenizer.encode("a b c d e f")) == "a b c d e f"
