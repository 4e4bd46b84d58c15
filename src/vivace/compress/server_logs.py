"""Calibration text from a server's request logs: conversations in JSON lines, each text redacted before it is used.

A line may be a request or an answer of the chat API, or hold them under "request", "response" or "body". Lines without
a conversation, as access logs have, are passed over. What is redacted, and whether people agreed, is the caller's.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vivace.compress.calibration_text import LabelledText
from vivace.types.errors import ConfigError

LABEL = "chat"
_WITHIN = ("request", "response", "body", "message", "choices", "messages", "output")
_TEXTS = ("content", "text", "prompt", "input")
_DEEPEST = 8
Redact = Callable[[str], str]


def read_logs(paths: Iterable[Path], redact: Redact) -> list[LabelledText]:
    """The conversations of log files, redacted, labelled "chat".

    Raises:
        ConfigError: a file is missing or not UTF-8, or no line of any holds a conversation.
    """
    found = [LabelledText(LABEL, redact(text)) for path in paths for text in _conversations(path)]
    if not found:
        raise ConfigError("The logs hold no conversations.", "Give JSON lines with messages, requests or responses.")
    return found


def _conversations(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                text = "\n".join(_texts(_value(line), 0))
                if text.strip():
                    yield text
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}).", "Convert it to UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check the path of the logs.") from None


def _value(line: str) -> object:
    """The JSON of a line; None for a line of another kind."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _texts(value: object, depth: int) -> Iterator[str]:
    """Texts of a conversation, in order; nothing of other fields, such as names, addresses or keys of callers."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _TEXTS and isinstance(item, str):
                yield item
            elif key in _WITHIN or (key in _TEXTS and isinstance(item, list)):
                yield from _texts(item, depth + 1)
