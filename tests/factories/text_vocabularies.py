"""Small but whole vocabularies for tests of the text room, as the values that a file reader hands over."""

import json
from dataclasses import replace
from typing import Any

from vivace.text.byte_alphabet import BYTE_TO_CHARACTER
from vivace.types.vocabulary import GgufVocabulary, HuggingFaceVocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = ("Ġhello", "Ġworld", "hello", "user", "assistant", "Ġ1", "123", "ĊĊ", "ĠĠĠĠ", "ä½ł", "å¥½", "<|", "|>", "end")


def byte_level(pre: str = "smollm", **changes: Any) -> GgufVocabulary:
    """Byte-level BPE: three control tokens (ids 0 to 2), one user-defined (<tool>), 256 bytes, a few words."""
    merges: list[str] = []
    for word in _WORDS:
        for cut in range(1, len(word)):
            merges.append(f"{word[:cut]} {word[cut]}")
    merges = list(dict.fromkeys(merges))
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = list(dict.fromkeys([*_CONTROL, "<tool>", *BYTE_TO_CHARACTER.values(), *joined]))
    types = [CONTROL] * len(_CONTROL) + [USER_DEFINED] + [NORMAL] * (len(tokens) - len(_CONTROL) - 1)
    vocabulary = GgufVocabulary(
        model="gpt2",
        pre=pre,
        tokens=tokens,
        token_types=types,
        scores=[],
        merges=merges,
        special_ids={"bos": 1, "eos": 2, "unknown": 0, "padding": 2},
        add_space_prefix=False,
        chat_template=CHATML,
    )
    return replace(vocabulary, **changes)


def sentencepiece(
    pieces: dict[str, float] | None = None, *, byte_fallback: bool = True, **changes: Any
) -> GgufVocabulary:
    """SentencePiece BPE: <unk>, <s>, </s>, <turn|>, user-defined "\\n\\n" and <b>, bytes, then `pieces` with scores."""
    if pieces is None:
        letters = "▁abcdefghijklmnopqrstuvwxyzHWU,.:!é你好"
        words = ("▁t", "he", "▁the", "ll", "llo", "hello", "▁hello", "▁w", "or", "▁wor", "▁world", "ld", "你好", "th")
        pieces = {piece: -float(rank) for rank, piece in enumerate((*words, *letters))}
    rows: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    rows += [("<end_of_turn>", 0.0, CONTROL), ("\n\n", 0.0, USER_DEFINED), ("<b>", 0.0, USER_DEFINED)]
    rows += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)] if byte_fallback else []
    rows += [(piece, score, NORMAL) for piece, score in pieces.items()]
    vocabulary = GgufVocabulary(
        model="llama",
        pre="default",
        tokens=[text for text, _, _ in rows],
        token_types=[kind for _, _, kind in rows],
        scores=[score for _, score, _ in rows],
        merges=[],
        special_ids={"unknown": 0, "bos": 1, "eos": 2},
        add_bos=True,
        add_space_prefix=True,
    )
    return replace(vocabulary, **changes)


def added_token(token_id: int, text: str, **changes: bool) -> dict[str, Any]:
    """One row of `added_tokens` in a tokenizer.json."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": text, "special": True, **flags, **changes}


def tokenizer_json(family: str = "byte level", **changes: Any) -> dict[str, Any]:
    """A tokenizer.json as an object: "byte level", or "metaspace" with the blank before the first word only."""
    byte_level_stage = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if family == "byte level":
        source = byte_level()
        merges, vocabulary = source.merges, {text: i for i, text in enumerate(source.tokens)}
        added = [added_token(i, text) for i, text in enumerate(_CONTROL)] + [added_token(3, "<tool>", special=False)]
        stages: dict[str, Any] = {"pre_tokenizer": byte_level_stage, "decoder": byte_level_stage}
    else:
        source = sentencepiece()
        vocabulary = {text: i for i, text in enumerate(source.tokens)}
        pairs = [(t[:cut], t[cut:]) for t in source.tokens[262:] for cut in range(1, len(t))]
        merges = [f"{left} {right}" for left, right in pairs if left in vocabulary and right in vocabulary]
        added = [added_token(i, source.tokens[i]) for i in range(4)] + [added_token(5, "<b>", special=False)]
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
        fallback = [
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]
        blank = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        stages = {"pre_tokenizer": metaspace, "decoder": {"type": "Sequence", "decoders": [blank, *fallback]}}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if family == "byte level" else "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": family != "byte level",
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None}
    return {**head, **stages, "post_processor": None, "model": model, **changes}


def hugging_face(document: dict[str, Any], **changes: Any) -> HuggingFaceVocabulary:
    """A Hugging Face folder's vocabulary with the given tokenizer.json."""
    return replace(HuggingFaceVocabulary(tokenizer_json=json.dumps(document), config={}), **changes)
