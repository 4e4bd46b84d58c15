"""How byte-level BPE vocabularies cut text into words before merging: one row per name of `tokenizer.ggml.pre`.

The patterns are those of the published tokenizer.json files; merges never cross a cut. A row's patterns are applied
one after the other, each to the pieces that the one before it left: matches and what lies between them become pieces.
A model whose name is missing here is refused rather than cut wrongly, since a wrong cut only shows as a worse model.
"""

from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from vivace.types.errors import UnsupportedModelError

_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
_QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
)
# What GGUF readers fall back to for files converted before the key existed.
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One way to cut text into words.

    Args:
        names: values of `tokenizer.ggml.pre` that mean this row.
        patterns: regular expressions (Oniguruma), applied in order.
        nfc: text is first brought into Unicode normal form C.
        ignore_merges: a word that is a vocabulary entry is taken whole, whatever its merges say.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False


PRE_TOKENIZERS: tuple[PreTokenizer, ...] = (
    PreTokenizer(("smollm", "starcoder", "refact", "codeshell"), (_DIGIT, _GPT2)),
    PreTokenizer(("gpt-2", "phi-2"), (_GPT2,)),
    PreTokenizer(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), (_LLAMA3,), ignore_merges=True),
    PreTokenizer(("smaug-bpe",), (_LLAMA3,)),
    PreTokenizer(("qwen2",), (_QWEN2,), nfc=True),
    PreTokenizer(("deepseek-r1-qwen",), (_QWEN2,)),
    PreTokenizer(("tekken",), (_TEKKEN,), ignore_merges=True),
    PreTokenizer(("default", ""), _DEFAULT),
)

_BY_NAME = {name: row for row in PRE_TOKENIZERS for name in row.names}


def find_pre_tokenizer(name: str) -> PreTokenizer:
    """Row of the pre-tokenizer that a GGUF file names.

    Raises:
        UnsupportedModelError: the name is not in the table.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        known = ", ".join(sorted(filter(None, _BY_NAME)))
        raise UnsupportedModelError(
            f"The model cuts text by a pre-tokenizer {name!r} that vivace does not know.",
            f"Use a model with one of these: {known}.",
        ) from None


def pre_tokenizer_pipeline(row: PreTokenizer) -> Any:
    """The row as a `tokenizers` pre-tokenizer that ends in the byte alphabet."""
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in row.patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def normalizer_pipeline(row: PreTokenizer) -> Any:
    """The row's normaliser for `tokenizers`, or None."""
    return normalizers.NFC() if row.nfc else None
