"""Prompts that `bench/speculate.py` measures on, by workload."""

import gzip
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

GREETING_INTENTS = ("greeting", "goodbye", "thank_you", "what_is_your_name", "how_old_are_you", "are_you_a_bot")


def code_prompts(data: Path) -> Iterator[str]:
    """HumanEval signatures and docstrings, to be completed."""
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["prompt"]


def question_prompts(data: Path) -> Iterator[str]:
    """First turns of MT-bench."""
    lines = (data / "mt_bench" / "question.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        yield json.loads(line)["turns"][0]


def repeat_prompts(data: Path) -> Iterator[str]:
    """The paragraphs of `copy_prompts`, to be given back as they are."""
    for prompt in copy_prompts(data):
        yield f"Repeat this text word for word:\n\n{prompt.partition(':')[2].strip()}"


def copy_prompts(data: Path) -> Iterator[str]:
    """Paragraphs of Wikipedia to be summarised by quoting them."""
    paragraphs = (data / "wikitext2" / "wiki.test.raw").read_text(encoding="utf-8").splitlines()
    for paragraph in [as_written(line) for line in paragraphs if 500 < len(line) < 900][::9]:
        yield f"Summarize this text by quoting its most important sentences word for word:\n\n{paragraph}"


def as_written(line: str) -> str:
    """WikiText puts blanks around punctuation, which no reader writes and no model copies."""
    text = re.sub(r" @(\S)@ ", r"\1", line.strip())
    text = re.sub(r" ([.,;:!?%)\]]|'s\b|n't\b)", r"\1", text)
    return re.sub(r'" (.*?) "', r'"\1"', re.sub(r"([(\[$]) ", r"\1", text))


def chat_prompts(data: Path) -> Iterator[str]:
    """Small talk, the intents in turns."""
    rows = json.loads((data / "clinc" / "data_full.json").read_text(encoding="utf-8"))["test"]
    by_intent = [[text for text, intent in rows if intent == wanted] for wanted in GREETING_INTENTS]
    for texts in itertools.zip_longest(*by_intent):
        yield from (text for text in texts if text is not None)


def chinese_chat_prompts(data: Path) -> Iterator[str]:
    """First words of Chinese dialogues about travel and about films, in turns."""
    with zipfile.ZipFile(data / "crosswoz" / "val.json.zip") as archive:
        travel = json.loads(archive.read("val.json")).values()
    films = json.loads((data / "kdconv" / "film_dev.json").read_text(encoding="utf-8"))
    for one, other in zip(travel, films, strict=False):
        yield one["messages"][0]["content"]
        yield other["messages"][0]["message"]


def chinese_task_prompts(data: Path) -> Iterator[str]:
    """Chinese instructions of all kinds, texts to write and programs among them."""
    for row in json.loads((data / "llamafactory" / "alpaca_zh_demo.json").read_text(encoding="utf-8")):
        yield f"{row['instruction']}\n{row['input']}".strip()


WORKLOADS: dict[str, tuple[Callable[[Path], Iterator[str]], bool]] = {
    "repeat": (repeat_prompts, True),
    "copy": (copy_prompts, True),
    "code": (code_prompts, False),
    "mt_bench": (question_prompts, True),
    "chat": (chat_prompts, True),
    "chat_zh": (chinese_chat_prompts, True),
    "tasks_zh": (chinese_task_prompts, True),
}
"""Prompts of each workload, and whether they are turns of a chat."""
