"""From what a model file says about text to a tokenizer and a chat template."""

from vivace.text.gguf_tokenizer import build_gguf_tokenizer
from vivace.text.hugging_face_tokenizer import build_hugging_face_tokenizer
from vivace.text.template import PLAIN_STOP_STRINGS, PLAIN_TEMPLATE, ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.vocabulary import GgufVocabulary, HuggingFaceVocabulary, Vocabulary


def build_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Tokenizer of a model.

    Raises:
        TokenizerError: the vocabulary is incomplete, broken or contradicts itself.
        UnsupportedModelError: a kind of vocabulary that vivace does not run.
    """
    if isinstance(vocabulary, GgufVocabulary):
        return build_gguf_tokenizer(vocabulary)
    return build_hugging_face_tokenizer(vocabulary)


def build_template(vocabulary: Vocabulary, tokenizer: Tokenizer) -> ChatTemplate:
    """Chat template of a model; the plain one for a model that comes without.

    Raises:
        TokenizerError: the template is not valid jinja2.
    """
    source = vocabulary.chat_template
    if source is None and isinstance(vocabulary, HuggingFaceVocabulary):
        source = _configured_template(vocabulary.config.get("chat_template"))
    if source is None:
        return ChatTemplate(PLAIN_TEMPLATE, tokenizer, stop_strings=PLAIN_STOP_STRINGS)
    return ChatTemplate(source, tokenizer)


def _configured_template(value: object) -> str | None:
    """tokenizer_config.json has one template, or a list of named ones of which "default" is for chats."""
    if isinstance(value, str):
        return value
    named = value if isinstance(value, list) else []
    found = {entry.get("name"): entry.get("template") for entry in named if isinstance(entry, dict)}
    default = found.get("default")
    return default if isinstance(default, str) else None
