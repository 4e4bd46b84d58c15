"""Tokenizers from the `tokenizer.ggml.*` keys of a GGUF file: one row per kind of vocabulary."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan

import numpy as np

from vivace.text.byte_level import ByteLevelEncoder, byte_level_spelling
from vivace.text.control import END_OF_TURN, looks_like_control
from vivace.text.sentencepiece import SentencePieceEncoder, piece_spelling
from vivace.text.tokenizer import ControlToken, Encoder, Tokenizer, TokenTable
from vivace.types.errors import TokenizerError, UnsupportedModelError
from vivace.types.vocabulary import GgufVocabulary

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_MEND = "Get the model file again, or use another one."
_NAMED = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def build_gguf_tokenizer(vocabulary: GgufVocabulary) -> Tokenizer:
    """Tokenizer of a GGUF vocabulary.

    Raises:
        TokenizerError: the vocabulary is incomplete or contradicts itself.
        UnsupportedModelError: a kind of vocabulary or a pre-tokenizer that vivace does not run.
    """
    kind = _KINDS.get(vocabulary.model)
    if kind is None:
        raise UnsupportedModelError(
            f"The model's tokenizer is of the kind {vocabulary.model!r}, which vivace does not run.",
            f"Use a model with one of these: {', '.join(_KINDS)}.",
        )
    _check(vocabulary)
    ids = _classify(vocabulary)
    encoder, spelling = kind(vocabulary, ids)
    bos, eos = vocabulary.special_ids.get("bos"), vocabulary.special_ids.get("eos")
    tokens = vocabulary.tokens
    table = TokenTable(
        size=len(tokens),
        text=tokens.__getitem__,
        spelling=spelling,
        control=ids.control,
        bos_id=bos,
        eos_id=eos,
        eos_ids=_ends(vocabulary, ids.control),
        prefix_ids=(bos,) if vocabulary.add_bos and bos is not None else (),
        suffix_ids=(eos,) if vocabulary.add_eos and eos is not None else (),
        strip_space=vocabulary.model == "llama" and vocabulary.add_space_prefix,
        named={
            name: tokens[vocabulary.special_ids[key]] for key, name in _NAMED.items() if key in vocabulary.special_ids
        },
    )
    return Tokenizer(encoder, table)


def _check(vocabulary: GgufVocabulary) -> None:
    size = len(vocabulary.tokens)
    if not size:
        raise TokenizerError("The model file holds no vocabulary.", _MEND)
    if vocabulary.token_types and len(vocabulary.token_types) != size:
        raise TokenizerError(f"The model file has {len(vocabulary.token_types)} token types for {size} tokens.", _MEND)
    for name, token_id in vocabulary.special_ids.items():
        if not 0 <= token_id < size:
            raise TokenizerError(f"The {name} token of the model file is {token_id}, beyond its {size} tokens.", _MEND)


@dataclass(frozen=True, slots=True)
class _Classes:
    """Ids by class. Every id that is in none of these is an ordinary piece."""

    control: dict[str, ControlToken]
    user_defined: dict[str, int]
    byte: list[int]
    unknown: list[int]

    def added(self) -> frozenset[int]:
        """Ids of tokens that are spelled in plain text."""
        return frozenset([*(token.token_id for token in self.control.values()), *self.user_defined.values()])


def _classify(vocabulary: GgufVocabulary) -> _Classes:
    """Sort the ids by type. Ends of sequence and tokens that look like turn markers are control tokens in any case."""
    tokens = vocabulary.tokens
    types = np.array(vocabulary.token_types, dtype=np.int64)

    def of_type(*kinds: int) -> list[int]:
        found: list[int] = np.flatnonzero(np.isin(types, kinds)).tolist()
        return found

    marked = of_type(_USER_DEFINED)
    control = {*of_type(_CONTROL, _UNKNOWN), *(i for i in marked if looks_like_control(tokens[i]))}
    control |= {vocabulary.special_ids[key] for key in ("bos", "eos", "eot") if key in vocabulary.special_ids}
    return _Classes(
        control={tokens[i]: ControlToken(i) for i in sorted(control) if tokens[i]},
        user_defined={tokens[i]: i for i in marked if i not in control and tokens[i]},
        byte=of_type(_BYTE),
        unknown=of_type(_UNKNOWN),
    )


def _ends(vocabulary: GgufVocabulary, control: dict[str, ControlToken]) -> frozenset[int]:
    named = {vocabulary.special_ids[key] for key in ("eos", "eot", "eom") if key in vocabulary.special_ids}
    return frozenset(named | {token.token_id for text, token in control.items() if text in END_OF_TURN})


_Spelling = Callable[[int], bytes]


def _byte_level(vocabulary: GgufVocabulary, ids: _Classes) -> tuple[Encoder, _Spelling]:
    if not vocabulary.merges:
        raise TokenizerError("The model file has a byte-level vocabulary without merges.", _MEND)
    added = ids.added()
    encoder = ByteLevelEncoder(vocabulary.tokens, vocabulary.merges, vocabulary.pre, ids.user_defined)
    return encoder, lambda token_id: byte_level_spelling(vocabulary.tokens, added, token_id)


def _sentencepiece(vocabulary: GgufVocabulary, ids: _Classes) -> tuple[Encoder, _Spelling]:
    tokens, scores = vocabulary.tokens, vocabulary.scores
    if len(scores) != len(tokens):
        raise TokenizerError(f"The model file has {len(scores)} scores for {len(tokens)} tokens.", _MEND)
    if isnan(sum(scores)):
        raise TokenizerError("The model file's token scores are not all numbers.", _MEND)
    pieces = dict(zip(tokens, range(len(tokens)), strict=True))
    for text in ["", *ids.control, *ids.user_defined, *(tokens[i] for i in ids.byte)]:
        pieces.pop(text, None)
    byte_of = {i: _byte_value(tokens[i]) for i in ids.byte}
    id_of = {byte: i for i, byte in byte_of.items()}
    encoder = SentencePieceEncoder(
        pieces,
        scores,
        ids.user_defined,
        [id_of[byte] for byte in range(256)] if len(id_of) == 256 else None,
        vocabulary.special_ids.get("unknown", ids.unknown[0] if ids.unknown else None),
        add_space_prefix=vocabulary.add_space_prefix,
    )
    return encoder, lambda token_id: piece_spelling(tokens[token_id], byte_of.get(token_id))


def _byte_value(text: str) -> int:
    try:
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return int(text[3:5], 16)
    except ValueError:
        pass
    raise TokenizerError(f"The model file has a byte token {text!r}; byte tokens read <0x00> to <0xFF>.", _MEND)


_KINDS: Mapping[str, Callable[[GgufVocabulary, _Classes], tuple[Encoder, _Spelling]]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
}
