"""What a model file says about text: handed from `files/` to `text/`, which builds a tokenizer from it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """The `tokenizer.ggml.*` keys of a GGUF file.

    `model` is "gpt2" (byte-level BPE with `merges` and the pre-tokenizer named by `pre`) or "llama" (SentencePiece
    style: `scores` and byte-fallback tokens). `token_types` uses GGUF's numbers: 1 normal, 2 unknown, 3 control,
    4 user defined, 5 unused, 6 byte.
    """

    model: str
    pre: str
    tokens: list[str]
    token_types: list[int]
    scores: list[float]
    merges: list[str]
    special_ids: dict[str, int] = field(default_factory=dict)  # "bos", "eos", "eot", "unknown", "padding" ...
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = True
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class HuggingFaceVocabulary:
    """A Hugging Face folder's `tokenizer.json` text and the parts of its side files that matter.

    `eos_ids` merges config.json and generation_config.json.
    """

    tokenizer_json: str
    config: dict[str, object]  # tokenizer_config.json, {} when absent
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    chat_template: str | None = None


Vocabulary = GgufVocabulary | HuggingFaceVocabulary
