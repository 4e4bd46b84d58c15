"""Tiny but whole vocabularies of both tokenizer kinds, as `tokenizer.ggml.*` keys and as a Hugging Face tokenizer."""

import json
import string

import numpy as np

from vivace.files.gguf_writer import WritableValue

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
_WORDS = "Ġthe Ġand Ġof Ġto ing er on in at es en or Ġa Ġs ed Ġw Ġc is it an re Ġb Ġp al Ġf ar le Ġin ou"
_SPECIALS = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes 0 .. 255 in byte-level BPE (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: chr(256 + index) for index, byte in enumerate(b for b in range(256) if b not in plain)}
    return [others.get(byte, chr(byte)) for byte in range(256)]


def _merges(limit: int) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for word in _WORDS.split():
        left = word[0]
        for letter in word[1:]:
            if (left, letter) not in merges:
                merges.append((left, letter))
            left += letter
    return merges[:limit]


def byte_level_tokens(vocab_size: int) -> tuple[list[str], list[str]]:
    """(tokens, merges as "left right") of a byte-level BPE; ids 0 .. 4 are special; unused ids fill the rest."""
    merges = _merges(vocab_size - len(_SPECIALS) - 256)
    tokens = [*_SPECIALS, *byte_alphabet(), *(left + right for left, right in merges)]
    tokens = list(dict.fromkeys(tokens))
    tokens += [f"<unused{index}>" for index in range(vocab_size - len(tokens))]
    return tokens, [f"{left} {right}" for left, right in merges]


def gpt2_vocabulary(vocab_size: int = 320) -> dict[str, WritableValue]:
    """Metadata keys of a byte-level BPE vocabulary; begin is 0, end is 1. vocab_size is at least 261."""
    tokens, merges = byte_level_tokens(vocab_size)
    types = [CONTROL if token in _SPECIALS or token.startswith("<unused") else NORMAL for token in tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def llama_vocabulary(vocab_size: int = 320) -> dict[str, WritableValue]:
    """Metadata keys of a SentencePiece-style vocabulary with byte fallback, of 286 ids or more."""
    letters = ["▁", *string.ascii_lowercase]
    merged = [(left + right).replace("Ġ", "▁") for left, right in _merges(vocab_size - 259 - len(letters))]
    ordinary = [*dict.fromkeys(merged), *letters]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *ordinary]
    tokens += [f"<unused{index}>" for index in range(vocab_size - len(tokens))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (vocab_size - 259)]
    scores = [0.0] * 259 + [-float(index) for index in range(vocab_size - 259)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


VOCABULARIES = {"gpt2": gpt2_vocabulary, "llama": llama_vocabulary}


def tokenizer_json(vocab_size: int = 320) -> str:
    """The vocabulary of `gpt2_vocabulary` as the text of a tokenizer.json."""
    tokens, merges = byte_level_tokens(vocab_size)
    specials = [token for token in tokens if token in _SPECIALS or token.startswith("<unused")]
    added = [
        {"id": tokens.index(token), "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token in specials
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": model,
        }
    )
