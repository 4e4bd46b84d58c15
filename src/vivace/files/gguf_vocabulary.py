"""The vocabulary of a GGUF file: its `tokenizer.ggml.*` keys, or the Hugging Face files that vivace put into it."""

import json
from typing import TypeVar

import numpy as np

from vivace.files.gguf_metadata import GgufMetadata
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.vocabulary import GgufVocabulary, HuggingFaceVocabulary, Vocabulary

Number = TypeVar("Number", int, float)

KNOWN_MODELS = ("gpt2", "llama")
NO_TOKENIZER = ("none", "no_vocab")
PRE_TOKENIZERS_WITH_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})
NORMAL_TOKEN = 1
TOKENIZER_JSON = "vivace.tokenizer.json"  # UTF-8 as an array of bytes: strings in GGUF headers are kept short
TOKENIZER_CONFIG = "vivace.tokenizer.config"
SPECIAL_NAMES = {
    "bos": "bos",
    "eos": "eos",
    "eot": "eot",
    "eom": "eom",
    "unknown": "unknown",
    "padding": "padding",
    "seperator": "separator",  # GGUF's own spelling
    "mask": "mask",
    "cls": "cls",
}


def read_vocabulary(metadata: GgufMetadata, vocab_size: int) -> Vocabulary | None:
    """Read the vocabulary.

    Args:
        metadata: of the model's (first) file.
        vocab_size: rows of the embedding; a vocabulary may be shorter (padded embeddings), never longer.

    Returns:
        The vocabulary, or None when the file has none.

    Raises:
        ModelFileError: keys are missing or contradict each other.
        UnsupportedModelError: the tokenizer is of a kind vivace does not know.
    """
    if metadata.has(TOKENIZER_JSON):
        return _embedded_vocabulary(metadata)
    if not metadata.has("tokenizer.ggml.model"):
        return None
    model = metadata.text("tokenizer.ggml.model")
    if model in NO_TOKENIZER:
        return None
    if model not in KNOWN_MODELS:
        raise UnsupportedModelError(
            f"The model's tokenizer is of kind {model[:40]!a}.", f"vivace knows {' and '.join(KNOWN_MODELS)}."
        )
    tokens = metadata.strings("tokenizer.ggml.tokens")
    if not 1 <= len(tokens) <= vocab_size:
        raise ModelFileError(
            f"The vocabulary has {len(tokens)} tokens, but the embedding has {vocab_size} rows.", "Get the file again."
        )
    pre = metadata.text("tokenizer.ggml.pre", "default")
    bos_by_default = model == "llama" or pre in PRE_TOKENIZERS_WITH_BOS
    return GgufVocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        token_types=_per_token(metadata, "token_type", len(tokens), NORMAL_TOKEN),
        scores=_per_token(metadata, "scores", len(tokens), 0.0),
        merges=metadata.strings("tokenizer.ggml.merges"),
        special_ids=_special_ids(metadata, len(tokens)),
        add_bos=metadata.flag("tokenizer.ggml.add_bos_token", bos_by_default),
        add_eos=metadata.flag("tokenizer.ggml.add_eos_token", False),
        add_space_prefix=metadata.flag("tokenizer.ggml.add_space_prefix", model == "llama"),
        chat_template=metadata.text("tokenizer.chat_template") if metadata.has("tokenizer.chat_template") else None,
    )


def _embedded_vocabulary(metadata: GgufMetadata) -> HuggingFaceVocabulary:
    """What `gguf_model_writer.py` stored of a Hugging Face folder."""
    try:
        texts = [
            metadata.numbers(key).astype(np.uint8).tobytes().decode() for key in (TOKENIZER_JSON, TOKENIZER_CONFIG)
        ]
        side = json.loads(texts[1])
        return HuggingFaceVocabulary(
            tokenizer_json=texts[0],
            config=dict(side["config"]),
            eos_ids=tuple(int(token) for token in side["eos_ids"]),
            bos_id=None if side["bos_id"] is None else int(side["bos_id"]),
            chat_template=None if side["chat_template"] is None else str(side["chat_template"]),
        )
    except (ValueError, KeyError, TypeError):
        raise ModelFileError("The tokenizer inside the model file is damaged.", "Get the file again.") from None


def _per_token(metadata: GgufMetadata, name: str, count: int, default: Number) -> list[Number]:
    """One number a token, of the type of `default`."""
    key = f"tokenizer.ggml.{name}"
    if not metadata.has(key):
        return [default] * count
    values = metadata.numbers(key)
    if len(values) != count:
        raise ModelFileError(f"{key} has {len(values)} entries for {count} tokens.", "Get the file again.")
    if isinstance(default, int) and values.dtype.kind not in "iu":
        raise ModelFileError(f"{key} does not hold whole numbers.", "Get the file again.")
    converted: list[Number] = values.astype(type(default)).tolist()
    return converted


def _special_ids(metadata: GgufMetadata, count: int) -> dict[str, int]:
    """Ids outside the vocabulary are left out, as llama.cpp does: makers write -1 and the like for "none"."""
    found = {}
    for key, name in SPECIAL_NAMES.items():
        full = f"tokenizer.ggml.{key}_token_id"
        if metadata.has(full) and 0 <= metadata.integer(full) < count:
            found[name] = metadata.integer(full)
    return found
