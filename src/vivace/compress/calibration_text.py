"""Text to calibrate on: from files and folders, mixed by label, cut into token windows.

A `.jsonl` file has one object a line with "text", "content", "prompt" and "response", or "messages"; any other file is
one text. What a line's "label" says (or the file's stem) is the slice it counts to when a mix is asked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivace.compress.recipe import CalibrationSettings
from vivace.execute.score import Tokens
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import ConfigError

MIXES: dict[str, dict[str, float]] = {
    "chapter": {"chat": 0.3, "task": 0.3, "knowledge": 0.2, "edge": 0.2},  # chapter 18.2.2
}
_TEXT_FIELDS = ("text", "content", "prompt", "question", "instruction", "response", "answer", "output")
_MOST_BYTES_PER_FILE = 32 << 20  # a calibration set is thousands of samples, not a corpus


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text and the slice it belongs to."""

    label: str
    text: str


def read_texts(paths: Iterable[Path]) -> list[LabelledText]:
    """The texts of files, and of the files in folders, in the order of their names.

    Raises:
        ConfigError: a path is missing, is not UTF-8 or not JSON where it should be; or there is no text at all.
    """
    texts = [text for path in paths for file in _files(path) for text in _read_file(file)]
    if not texts:
        raise ConfigError("The calibration files hold no text.", "Give UTF-8 text or JSONL files.")
    return texts


def draw_windows(
    texts: Sequence[LabelledText], tokenizer: Tokenizer, settings: CalibrationSettings, mix: Mapping[str, float] | None
) -> list[Tokens]:
    """Cut texts into windows and draw as many as the settings ask for, reproducibly.

    Texts of a label are joined, so that short ones fill windows too. With a mix, each label gives its share.

    Args:
        texts: labelled.
        tokenizer: the model's.
        settings: how many windows of how many tokens, and the seed of the draw.
        mix: share of each label, or None for all texts alike.

    Raises:
        ConfigError: a label of the mix has no text, or there is too little text for one window.
    """
    generator = np.random.default_rng(settings.seed)
    shares = {None: 1.0} if mix is None else dict(mix)
    windows: list[Tokens] = []
    for label, share in shares.items():
        chosen = [text for text in texts if label is None or text.label == label]
        if not chosen:
            known = ", ".join(sorted({text.label for text in texts}))[:200]
            raise ConfigError(f"The mix wants text labelled {label!r}.", f"The files have the labels {known}.")
        windows += _draw(chosen, tokenizer, max(1, round(share * settings.samples)), settings.tokens, generator)
    return windows


def _draw(
    texts: Sequence[LabelledText], tokenizer: Tokenizer, count: int, size: int, generator: np.random.Generator
) -> list[Tokens]:
    """`count` windows from as much of the texts, in random order, as it takes to have four times as many."""
    ids: list[int] = []
    for index in generator.permutation(len(texts)):
        ids += tokenizer.encode(_excerpt(texts[index].text, 16 * count * size, generator))
        if len(ids) >= 4 * count * size:
            break
    windows = [np.array(ids[start : start + size], np.int32) for start in range(0, len(ids) - size + 1, size)]
    if not windows:
        raise ConfigError(
            f"The calibration text has {len(ids)} tokens, too few for one sample of {size}.",
            "Give more text, or fewer tokens a sample.",
        )
    picked = generator.choice(len(windows), min(count, len(windows)), replace=False)
    if tokenizer.adds_bos and tokenizer.bos_id is not None:
        for index in picked:
            windows[index][0] = tokenizer.bos_id
    return [windows[index] for index in picked]


def _excerpt(text: str, size: int, generator: np.random.Generator) -> str:
    """A long text from a random place on, so that the windows are not all of its beginning."""
    if len(text) <= size:
        return text
    start = int(generator.integers(len(text) - size))
    return text[start : start + size]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not path.is_file():
        raise ConfigError(f"{path} does not exist.", "Check the path of the calibration text.")
    return [path]


def _read_file(path: Path) -> list[LabelledText]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES_PER_FILE)
        content = raw.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < _MOST_BYTES_PER_FILE - 4:
            raise ConfigError(f"{path} is not UTF-8 (byte {error.start}).", "Convert it to UTF-8.") from None
        content = error.object[: error.start].decode()  # the limit cut a character
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    if path.suffix != ".jsonl":
        return [LabelledText(path.stem, content)] if content.strip() else []
    lines = content.split("\n")  # JSON may hold the other ends of lines that splitlines knows
    if len(raw) == _MOST_BYTES_PER_FILE:
        lines.pop()  # the limit cut it
    return [_read_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _read_line(path: Path, number: int, line: str) -> LabelledText:
    try:
        value = json.loads(line)
    except ValueError:
        raise ConfigError(f"Line {number} of {path} is not JSON.", "A .jsonl file has one object a line.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"Line {number} of {path} is not an object.", "A .jsonl file has one object a line.")
    messages = value.get("messages")
    parts = [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    parts += [value.get(name) for name in _TEXT_FIELDS]
    text = "\n".join(part for part in parts if isinstance(part, str))
    if not text:
        raise ConfigError(f"Line {number} of {path} has no text.", f"Give one of {', '.join(_TEXT_FIELDS)}, messages.")
    label = value.get("label")
    return LabelledText(label if isinstance(label, str) else path.stem, text)
