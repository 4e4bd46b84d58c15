"""Questions are read from files of each kind and answered by likelihood; a context is computed once for all endings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec
from factories.tiny_models import random_weights
from factories.vocabularies import tokenizer_json
from vivace.evaluate.items import BUILT_IN, Choice, LastWord, Sum, last_number, read_tasks
from vivace.evaluate.tasks import MOST_TOKENS, Subject, answer_items, continue_greedily, ending_log_probabilities
from vivace.execute.native import NativeExecutor
from vivace.execute.score import iterate_logits, log_softmax
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE
from vivace.types.vocabulary import HuggingFaceVocabulary


@pytest.fixture(scope="module")
def subject() -> Subject:
    tokenizer = build_tokenizer(HuggingFaceVocabulary(tokenizer_json(), {}))
    spec = replace(small_spec(vocab_size=tokenizer.vocab_size), context_length=2048)
    executor = NativeExecutor(
        build_graph(spec), random_weights(spec), num_blocks=MOST_TOKENS // BLOCK_SIZE, max_rows=16, num_threads=1
    )
    return Subject(executor, tokenizer)


def test_endings_are_scored_as_whole_sequences_are(subject: Subject) -> None:
    context, endings = "the sand and the hand of those on the", [" land", " sand is at an end", "s"]
    found = ending_log_probabilities(subject, context, endings)
    for ending, (total, count, _) in zip(endings, found, strict=True):
        ids = np.array(subject.encode(context + ending), np.int32)
        first = len(ids) - count - 1
        expected = 0.0
        for places, logits in iterate_logits(subject.executor, ids[:-1], first, logit_rows=16):
            targets = ids[places.start + 1 : places.stop + 1]
            expected += log_softmax(logits)[np.arange(len(targets)), targets].sum()
        assert total == pytest.approx(float(expected), abs=1e-9)


def test_the_likelier_ending_is_chosen_and_a_greedy_word_is_guessed(subject: Subject) -> None:
    context = "the land is"
    written = continue_greedily(subject, subject.encode(context), 3, ("never",))
    endings = (written, " qqqqqqqq zzzz")
    scores = ending_log_probabilities(subject, context, endings)
    per_byte = [total / len(ending.encode()) for (total, _, _), ending in zip(scores, endings, strict=True)]
    best = int(np.argmax(per_byte))
    items = [Choice(context, endings, best), Choice(context, endings, 1 - best), LastWord(context, " qqqqqqqq")]
    assert answer_items(subject, items, lambda *_: None) == [True, False, False]


def test_a_question_that_is_too_long_is_wrong_and_not_an_error(subject: Subject) -> None:
    items = [LastWord("a b " * MOST_TOKENS, " c"), Sum("1 " * MOST_TOKENS, "1")]
    assert answer_items(subject, items, lambda *_: None) == [False, False]


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "hellaswag_part.txt").write_text("He sits. he\n3\none\ntwo\nthree\nfour\n" * 2)
    (tmp_path / "lambada_x.jsonl").write_text(json.dumps({"text": "it was a stone"}) + "\n")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text(json.dumps({"question": "q", "answer": "so\n#### 1,200"}))
    (tmp_path / "mgsm_zh.tsv").write_text("几个？\t18\n")
    (tmp_path / "mine.choices.jsonl").write_text(json.dumps({"question": "q", "choices": ["a", "b"], "answer": 1}))
    tasks = read_tasks(tmp_path)
    assert list(tasks) == ["choices-en", "choices-zh", "gsm8k", "hellaswag", "lambada", "mgsm_zh", "mine"]
    assert tasks["hellaswag"][1] == Choice("He sits. he", (" one", " two", " three", " four"), 3)
    assert tasks["lambada"] == [LastWord("it was a", " stone")]
    assert tasks["gsm8k"] == [Sum("q", "1,200")]
    assert tasks["mgsm_zh"] == [Sum("几个？", "18")]
    assert tasks["mine"] == [Choice("q", ("a", "b"), 1)]


def test_the_built_in_questions_are_in_two_languages_and_right_answers_stand_anywhere() -> None:
    rows = [json.loads(line) for line in BUILT_IN.read_text(encoding="utf-8").splitlines()]
    assert {row["language"] for row in rows} == {"en", "zh"}
    assert len({row["question"] for row in rows}) == len(rows) >= 40
    assert len({row["answer"] for row in rows}) > 1
    tasks = read_tasks(None)
    assert {name: len(items) for name, items in tasks.items()} == {
        f"choices-{language}": sum(row["language"] == language for row in rows) for language in ("en", "zh")
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.choices.jsonl", '{"question": "q", "choices": ["a"], "answer": 1}'),
        ("x.choices.jsonl", "{"),
        ("lambada.jsonl", '{"words": 1}'),
        ("hellaswag.txt", "a\nb\nc\nd\ne\nf\n"),
    ],
)
def test_a_damaged_task_file_is_refused_by_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=name):
        read_tasks(tmp_path)


def test_numbers_are_found_in_answers() -> None:
    assert last_number("3 + 4 = 7 apples. The answer is 1,234.50.") == "1234.5"
    assert last_number("none") is None
