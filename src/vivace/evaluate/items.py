"""Questions of tasks, read from a folder: each known kind of file is a row of READERS.

Multiple choice (HellaSwag's text form, and JSON lines of our own form), last words (LAMBADA), sums with a number for an
answer (GSM8K, MGSM). A small set of multiple choice in English and Chinese comes with the package.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from vivace.types.errors import ConfigError

LANGUAGES = ("en", "zh")  # of the built-in questions
BUILT_IN = Path(__file__).parent / "data" / "choices.jsonl"


@dataclass(frozen=True, slots=True)
class Choice:
    """A context and endings, of which number `answer` is right."""

    context: str
    endings: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class LastWord:
    """A text whose last word is to be guessed; `word` has the space before it."""

    context: str
    word: str


@dataclass(frozen=True, slots=True)
class Sum:
    """A question in words whose answer is a number."""

    question: str
    answer: str


Item = Choice | LastWord | Sum


def read_tasks(folder: Path | None) -> dict[str, list[Item]]:
    """The tasks of a folder and the folders in it, by name; the built-in set alone without one.

    Raises:
        ConfigError: the folder is missing, a file of a known name is not what it should be, or there is no such file.
    """
    tasks: dict[str, list[Item]] = {}
    for name, file, read in _found(folder):
        try:
            items = list(read(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{file} is no task file of its kind: {' '.join(str(error).split())[:100]}.", "See docs/evaluation.md."
            ) from None
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}.", "Check the path.") from None
        tasks.setdefault(name, []).extend(items)
    return {name: items for name, items in tasks.items() if items}


def _found(folder: Path | None) -> Iterator[tuple[str, Path, "Reader"]]:
    for language in LANGUAGES:  # apart, since few bits cost one language more than the other
        yield f"choices-{language}", BUILT_IN, partial(_choices, language=language)
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of tasks.", "Give one that has such files (docs/evaluation.md).")
    known = False
    for file in sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()):
        for pattern, name, read in READERS:
            if fnmatch(file.relative_to(folder).as_posix(), pattern):
                known = True
                yield name or file.name.split(".")[0], file, read
                break
    if not known:
        patterns = ", ".join(pattern for pattern, _, _ in READERS)
        raise ConfigError(f"{folder} has no task files.", f"Known are {patterns}.")


def _choices(text: str, language: str | None = None) -> Iterator[Item]:
    """JSON lines of our own form; with `language`, those of it alone."""
    for line in text.splitlines():
        if line.strip():
            value = json.loads(line)
            if language is not None and value["language"] != language:
                continue
            item = Choice(str(value["question"]), tuple(map(str, value["choices"])), int(value["answer"]))
            if not 0 <= item.answer < len(item.endings):
                raise ValueError(f"answer {item.answer} of {len(item.endings)} choices")
            yield item


def _hellaswag(text: str) -> Iterator[Item]:
    """Six lines an item: context, number of the right ending, four endings (llama.cpp's form)."""
    lines = text.splitlines()
    for start in range(0, len(lines) - 5, 6):
        context, answer, *endings = lines[start : start + 6]
        yield Choice(context, tuple(f" {ending}" for ending in endings), int(answer))


def _lambada(text: str) -> Iterator[Item]:
    for line in text.splitlines():
        if line.strip():
            context, _, word = str(json.loads(line)["text"]).strip().rpartition(" ")
            yield LastWord(context, f" {word}")


def _gsm8k(text: str) -> Iterator[Item]:
    for line in text.splitlines():
        if line.strip():
            value = json.loads(line)
            yield Sum(str(value["question"]), str(value["answer"]).rpartition("####")[2].strip())


def _mgsm(text: str) -> Iterator[Item]:
    for line in text.splitlines():
        question, tab, answer = line.rpartition("\t")
        if tab:
            yield Sum(question, answer.strip())


def last_number(text: str) -> str | None:
    """The last number of a text as its digits, without separators; None without one."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return normal_number(found[-1]) if found else None


def normal_number(text: str) -> str:
    """A number without separators of thousands and trailing zeros."""
    plain = text.replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


Reader = Callable[[str], Iterator[Item]]
READERS: tuple[tuple[str, str, Reader], ...] = (
    ("*hellaswag*.txt", "hellaswag", _hellaswag),
    ("*lambada*.jsonl", "lambada", _lambada),
    ("*mgsm*.tsv", "", _mgsm),
    ("*gsm8k*.jsonl", "gsm8k", _gsm8k),
    ("*.choices.jsonl", "", _choices),
)
"""(pattern of the path in the folder, name of the task or "" for the file's, reader); the first that matches counts."""
