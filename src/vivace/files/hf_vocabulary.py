"""The tokenizer files of a Hugging Face folder as a `HuggingFaceVocabulary`."""

from pathlib import Path

from vivace.files.json_object import JsonObject, read_json_object, read_text
from vivace.types.errors import ModelFileError
from vivace.types.vocabulary import HuggingFaceVocabulary

MAX_TOKENIZER_BYTES = 1 << 28
MAX_TEMPLATE_BYTES = 1 << 20


def read_vocabulary(folder: Path, config: JsonObject) -> HuggingFaceVocabulary | None:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json and the chat template.

    Args:
        folder: where they lie.
        config: the folder's config.json.

    Returns:
        The vocabulary, or None when there is no tokenizer.json.

    Raises:
        ModelFileError: one of the files is damaged or has fields of the wrong type.
    """
    if not (folder / "tokenizer.json").exists():
        return None
    tokenizer_config = _optional(folder / "tokenizer_config.json")
    generation = _optional(folder / "generation_config.json")
    text_config = config.inner("text_config")
    sources = (generation, config, text_config)
    return HuggingFaceVocabulary(
        tokenizer_json=read_text(folder / "tokenizer.json", MAX_TOKENIZER_BYTES),
        config=tokenizer_config.as_dict(),
        eos_ids=tuple(dict.fromkeys(token for source in sources for token in _ids(source, "eos_token_id"))),
        bos_id=next((token for source in sources for token in _ids(source, "bos_token_id")), None),
        chat_template=_chat_template(folder, tokenizer_config),
    )


def _optional(path: Path) -> JsonObject:
    return read_json_object(path) if path.exists() else JsonObject({}, str(path))


def _ids(source: JsonObject, key: str) -> list[int]:
    """Token ids of a field that may hold one, several or none."""
    value = source.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    ids = [token for token in values if isinstance(token, int) and not isinstance(token, bool) and token >= 0]
    if len(ids) != len(values):
        raise ModelFileError(f"{source.source}: the field {key!r} holds no token ids.", "Get the file again.")
    return ids


def _chat_template(folder: Path, tokenizer_config: JsonObject) -> str | None:
    """A file of its own wins, as in transformers; a list of named templates is searched for "default"."""
    if (folder / "chat_template.jinja").exists():
        return read_text(folder / "chat_template.jinja", MAX_TEMPLATE_BYTES)
    if (folder / "chat_template.json").exists():
        return read_json_object(folder / "chat_template.json").text("chat_template")
    value = tokenizer_config.get("chat_template")
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
        value = named[0].get("template") if named else None
    if value is None or isinstance(value, str):
        return value
    raise ModelFileError(f"{tokenizer_config.source}: chat_template is no text.", "Get the file again.")
