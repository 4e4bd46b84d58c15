"""Byte-level BPE from the keys of a GGUF file ("gpt2" vocabularies), merged by the `tokenizers` library."""

from collections.abc import Sequence
from typing import cast

from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from vivace.text.byte_alphabet import spell
from vivace.text.library import library_errors
from vivace.text.literals import LiteralMatcher
from vivace.text.pretokenizers import find_pre_tokenizer, normalizer_pipeline, pre_tokenizer_pipeline
from vivace.types.errors import TokenizerError


class ByteLevelEncoder:
    """Cuts text into words, spells them in the byte alphabet and merges by rank.

    A byte that the vocabulary lacks is left out, as in the reference implementations (SmolLM2 has no token for U+0004,
    for instance).

    Args:
        tokens: vocabulary entries in id order.
        merges: pairs "left right", best first.
        pre: name of the pre-tokenizer, see `pretokenizers.py`.
        user_defined: text to id of tokens that are taken whole wherever they occur.

    Raises:
        UnsupportedModelError: unknown pre-tokenizer.
        TokenizerError: a merge is no pair of vocabulary entries.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], pre: str, user_defined: dict[str, int]) -> None:
        row = find_pre_tokenizer(pre)
        vocabulary = dict(zip(tokens, range(len(tokens)), strict=True))
        pairs = _pairs(merges)
        with library_errors("The merges of the model's vocabulary do not fit its tokens"):
            model = BPE(vocabulary, pairs, ignore_merges=row.ignore_merges)
        pipeline = Pipeline(model)
        pipeline.pre_tokenizer = pre_tokenizer_pipeline(row)
        normalizer = normalizer_pipeline(row)
        if normalizer is not None:
            pipeline.normalizer = normalizer
        self._pipeline = pipeline
        self._user_defined = LiteralMatcher(user_defined)

    def encode(self, text: str, *, at_start: bool) -> list[int]:
        """Ids of plain text; `at_start` makes no difference here."""
        ids: list[int] = []
        position = 0
        for start, end, token_id in self._user_defined.find(text):
            ids += self._merge(text[position:start])
            ids.append(token_id)
            position = end
        return ids + self._merge(text[position:])

    def _merge(self, text: str) -> list[int]:
        ids: list[int] = self._pipeline.encode(text, add_special_tokens=False).ids if text else []
        return ids


def _pairs(merges: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [tuple(merge.split(" ")) for merge in merges]
    for merge, pair in zip(merges, pairs, strict=True):
        if len(pair) != 2:
            raise TokenizerError(
                f"The model's vocabulary has a broken merge {merge!r}: it should be two tokens and a blank between.",
                "Get the model file again, or use another one.",
            )
    return cast(list[tuple[str, str]], pairs)


def byte_level_spelling(tokens: Sequence[str], added: frozenset[int], token_id: int) -> bytes:
    """Bytes of an entry: added tokens are plain text, all others are spelled in the byte alphabet."""
    text = tokens[token_id]
    return text.encode("utf-8") if token_id in added else spell(text)
