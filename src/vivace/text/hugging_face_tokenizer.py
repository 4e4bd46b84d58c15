"""Tokenizers from a Hugging Face folder's tokenizer.json and tokenizer_config.json, run by the `tokenizers` library.

The library's own handling of special tokens is switched off: like every tokenizer of vivace, this one recognises
control tokens in `tokenizer.py` only.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline

from vivace.text.byte_alphabet import spell
from vivace.text.control import END_OF_TURN, looks_like_control
from vivace.text.library import library_errors
from vivace.text.sentencepiece import piece_spelling
from vivace.text.tokenizer import ControlToken, Tokenizer, TokenTable
from vivace.types.errors import TokenizerError, UnsupportedModelError
from vivace.types.vocabulary import HuggingFaceVocabulary

_MEND = "Get the model folder again, or use another model."
_PROBE = "a"
_MODELS = ("BPE", "Unigram", None)
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class HuggingFaceEncoder:
    """Encodes plain text with a tokenizer.json pipeline that treats control tokens as plain text."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._inner = pipeline
        self._needs_inner = any(
            stage.get("prepend_scheme") == "first" for stage in _stages(_state(pipeline.pre_tokenizer))
        )

    def encode(self, text: str, *, at_start: bool) -> list[int]:
        """Ids of plain text. A pipeline that puts a blank before the first word only does so when `at_start`."""
        pipeline = self._pipeline if at_start else self._after_control()
        return _encode(pipeline, text)

    def _after_control(self) -> Pipeline:
        if self._needs_inner:
            state = json.loads(self._pipeline.to_str())
            for stage in _stages(state["pre_tokenizer"]):
                if stage.get("prepend_scheme") == "first":
                    stage["prepend_scheme"] = "never"
            inner = Pipeline.from_str(json.dumps(state))
            inner.encode_special_tokens = True
            self._inner, self._needs_inner = inner, False
        return self._inner


def build_hugging_face_tokenizer(vocabulary: HuggingFaceVocabulary) -> Tokenizer:
    """Tokenizer of a Hugging Face folder.

    Raises:
        TokenizerError: tokenizer.json is broken, or names a token it does not have.
        UnsupportedModelError: its decoder is neither byte-level nor SentencePiece-like.
    """
    pipeline = _read(vocabulary.tokenizer_json)
    added: dict[int, AddedToken] = pipeline.get_added_tokens_decoder()
    size = max([pipeline.get_vocab_size(with_added_tokens=True), *(token_id + 1 for token_id in added)])
    family = _family(pipeline)
    prefix, suffix = _surroundings(pipeline)
    named = {name: text for name in _NAMED if (text := _token_text(vocabulary.config.get(name))) is not None}
    ends = [token_id for token_id in vocabulary.eos_ids if 0 <= token_id < size]
    bos = vocabulary.bos_id if vocabulary.bos_id in range(size) else _named_id(pipeline, named, "bos_token")
    eos = _named_id(pipeline, named, "eos_token")
    if eos is None and ends:
        eos = ends[0]
    control = _control_tokens(pipeline, added, {token_id for token_id in (bos, eos, *ends) if token_id is not None})
    ends += [token.token_id for text, token in control.items() if text in END_OF_TURN]
    table = TokenTable(
        size=size,
        text=pipeline.id_to_token,
        spelling=_spelling(pipeline, added, byte_level=family == "byte level"),
        control=control,
        bos_id=bos,
        eos_id=eos,
        eos_ids=frozenset(ends if eos is None else [*ends, eos]),
        prefix_ids=_wanted(prefix, bos, vocabulary.config.get("add_bos_token")),
        suffix_ids=_wanted(suffix, eos, vocabulary.config.get("add_eos_token")),
        strip_space=family != "byte level" and _strips_space(pipeline),
        named=named,
    )
    return Tokenizer(HuggingFaceEncoder(_without_control(pipeline, control)), table)


class _Model(msgspec.Struct):
    type: str | None = None
    continuing_subword_prefix: str | None = None


class _File(msgspec.Struct):
    """The parts of a tokenizer.json that are looked at before the library reads it."""

    model: _Model


def _read(tokenizer_json: str) -> Pipeline:
    try:
        model = msgspec.json.decode(tokenizer_json, type=_File).model
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise TokenizerError(f"The model's tokenizer.json cannot be read: {error}.", _MEND) from None
    # The library ends the whole process on some files with such a prefix; no model that vivace runs has one.
    if model.type not in _MODELS or model.continuing_subword_prefix:
        raise UnsupportedModelError(
            f"The model's tokenizer.json is of the kind {model.type!r}"
            f" with subword prefix {model.continuing_subword_prefix or ''!r}.",
            "Use a model with a byte-level or SentencePiece-like tokenizer.",
        )
    with library_errors("The model's tokenizer.json cannot be read"):
        pipeline = Pipeline.from_str(tokenizer_json)
        pipeline.no_truncation()
        pipeline.no_padding()
    return pipeline


def _encode(pipeline: Pipeline, text: str, *, add_special_tokens: bool = False) -> list[int]:
    with library_errors("The model's tokenizer.json cannot encode a text"):
        ids: list[int] = pipeline.encode(text, add_special_tokens=add_special_tokens).ids
    return ids


def _state(component: Any) -> Any:
    """A pipeline component as the JSON it is pickled as; {} for a missing one."""
    return json.loads(component.__getstate__()) if component is not None else {}


def _stages(state: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a component's JSON, itself included."""
    if isinstance(state, dict):
        yield state
        for value in state.values():
            yield from _stages(value)
    elif isinstance(state, list):
        for value in state:
            yield from _stages(value)


def _family(pipeline: Pipeline) -> str:
    types = {str(stage["type"]) for stage in _stages(_state(pipeline.decoder)) if "type" in stage}
    if "ByteLevel" in types:
        return "byte level"
    if types & {"ByteFallback", "Metaspace"}:
        return "sentencepiece"
    raise UnsupportedModelError(
        f"The model's tokenizer.json decodes by {', '.join(sorted(types)) or 'nothing'}.",
        "Use a model with a byte-level or SentencePiece-like tokenizer.",
    )


def _strips_space(pipeline: Pipeline) -> bool:
    """Whether the decoder drops a blank at the start of a text."""
    return any(
        (stage.get("type") == "Strip" and stage.get("start", 0) > 0)
        or (stage.get("type") == "Metaspace" and stage.get("prepend_scheme", "always") != "never")
        for stage in _stages(_state(pipeline.decoder))
    )


def _surroundings(pipeline: Pipeline) -> tuple[list[int], list[int]]:
    """Ids that the post-processor puts before and after a text, found with a probe."""
    bare = _encode(pipeline, _PROBE)
    full = _encode(pipeline, _PROBE, add_special_tokens=True)
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise TokenizerError("The post-processor of the model's tokenizer.json changes the text itself.", _MEND)


def _wanted(ids: list[int], token_id: int | None, flag: object) -> tuple[int, ...]:
    """Apply `add_bos_token` or `add_eos_token` of tokenizer_config.json, which overrule tokenizer.json."""
    if token_id is None or not isinstance(flag, bool):
        return tuple(ids)
    kept = [i for i in ids if i != token_id]
    return (token_id, *kept) if flag else tuple(kept)


def _token_text(value: object) -> str | None:
    """Text of a named token: tokenizer_config.json has it plain or as an object with `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _named_id(pipeline: Pipeline, named: Mapping[str, str], name: str) -> int | None:
    if name not in named:
        return None
    token_id: int | None = pipeline.token_to_id(named[name])
    if token_id is None:
        raise TokenizerError(
            f"tokenizer_config.json names {named[name]!r} as {name}, which tokenizer.json does not have.", _MEND
        )
    return token_id


def _control_tokens(pipeline: Pipeline, added: Mapping[int, AddedToken], ends: set[int]) -> dict[str, ControlToken]:
    control = {
        token.content: ControlToken(token_id, lstrip=token.lstrip, rstrip=token.rstrip)
        for token_id, token in added.items()
        if token.content and (token.special or token_id in ends or looks_like_control(token.content))
    }
    for token_id in sorted(ends):
        text = pipeline.id_to_token(token_id)
        if text and text not in control:
            control[text] = ControlToken(token_id)
    return control


def _without_control(pipeline: Pipeline, control: Mapping[str, ControlToken]) -> Pipeline:
    """Make the pipeline treat every control token in a text as plain text."""
    pipeline.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in control])
    pipeline.encode_special_tokens = True
    return pipeline


def _spelling(pipeline: Pipeline, added: Mapping[int, AddedToken], *, byte_level: bool) -> Callable[[int], bytes]:
    def spelling(token_id: int) -> bytes:
        text = pipeline.id_to_token(token_id) or ""
        if byte_level:
            return text.encode("utf-8") if token_id in added else spell(text)
        return piece_spelling(text, None if token_id in added else _byte_value(text))

    return spelling


def _byte_value(text: str) -> int | None:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return int(text[3:5], 16)
        except ValueError:
            return None
    return None
