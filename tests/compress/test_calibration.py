"""Calibration text: reading, mixing, drawing, and text that a model writes itself, by which a float model gains."""

import json
from pathlib import Path

import numpy as np
import pytest

from compress.llama2c import find_stories, read_llama2c
from compress.models import uneven_model
from factories.vocabularies import tokenizer_json
from vivace.compress.calibration_text import MIXES, LabelledText, draw_windows, read_texts
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule
from vivace.compress.self_text import blocks_needed, write_samples
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import ConfigError
from vivace.types.vocabulary import HuggingFaceVocabulary
from vivace.types.weights import TensorFormat


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(HuggingFaceVocabulary(tokenizer_json(), {}))


def labelled(letters: dict[str, str]) -> list[LabelledText]:
    return [LabelledText(label, letter * 900) for label, letter in letters.items()]


def test_files_folders_and_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("some text")
    lines = [
        {"text": "one", "label": "chat"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"question": "why?", "answer": "so"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / ".hidden").write_text("x")
    texts = read_texts([tmp_path, tmp_path / "b.txt"])
    assert [(text.label, text.text) for text in texts] == [
        ("chat", "one"),
        ("a", "hi\nho"),
        ("a", "why?\nso"),
        ("b", "some text"),
        ("b", "some text"),
    ]


def test_lines_end_where_json_lines_do_and_a_cut_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one\u2028two\x85three", "a second", "a third 你好"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert [found.text for found in read_texts([tmp_path / "a.jsonl"])] == texts
    whole = (tmp_path / "a.jsonl").stat().st_size
    for cut in range(whole - 12, whole):  # within the last line's characters as well
        monkeypatch.setattr("vivace.compress.calibration_text._MOST_BYTES_PER_FILE", cut)
        assert [found.text for found in read_texts([tmp_path / "a.jsonl"])] == texts[:2]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b"  \n", "no text"),
        ("a.jsonl", b"{", "Line 1"),
        ("a.jsonl", b"[1]", "not an object"),
        ("a.jsonl", b'{"text": "x"}\n{"id": 3}', "Line 2"),
    ],
)
def test_unusable_files_are_refused_in_words(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_texts([tmp_path / name])


def test_the_chapters_mix_draws_its_shares(tokenizer: Tokenizer) -> None:
    texts = labelled({"chat": "c", "task": "t", "knowledge": "k", "edge": "e", "other": "o"})
    windows = draw_windows(texts, tokenizer, CalibrationSettings(20, 16), MIXES["chapter"])
    letters = [tokenizer.decode(window.tolist())[0] for window in windows]
    assert {letter: letters.count(letter) for letter in "ctkeo"} == {"c": 6, "t": 6, "k": 4, "e": 4, "o": 0}
    with pytest.raises(ConfigError, match="labelled 'edge'"):
        draw_windows(
            labelled({"chat": "c", "task": "t", "knowledge": "k"}), tokenizer, CalibrationSettings(), MIXES["chapter"]
        )


def test_draws_are_seeded_and_never_repeat_a_window(tokenizer: Tokenizer) -> None:
    text = [LabelledText("a", " ".join(str(number) for number in range(900)))]
    first, again, other = (draw_windows(text, tokenizer, CalibrationSettings(8, 32, s), None) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({window.tobytes() for window in first}) == 8
    with pytest.raises(ConfigError, match="too few"):
        draw_windows([LabelledText("a", "short")], tokenizer, CalibrationSettings(1, 512), None)


def test_a_model_writes_what_it_would_write_alone() -> None:
    spec, weights = uneven_model()
    settings = CalibrationSettings(samples=3, tokens=20, seed=4)
    executor = ReferenceExecutor(build_graph(spec), weights, num_blocks=blocks_needed(settings))
    samples = write_samples(executor, settings, bos_id=0)
    assert [sample.shape for sample in samples] == [(20,)] * 3
    assert all(sample[0] == 0 for sample in samples)
    np.testing.assert_array_equal(samples, write_samples(executor, settings, bos_id=0))
    assert len({sample.tobytes() for sample in samples}) == 3


@pytest.mark.slow
def test_a_trained_float_model_keeps_most_with_all_methods() -> None:
    spec, weights = read_llama2c(find_stories())
    graph = build_graph(spec)
    settings = CalibrationSettings(samples=16, tokens=96)
    executor = ReferenceExecutor(graph, weights, num_blocks=blocks_needed(settings))
    samples = write_samples(executor, settings, bos_id=1)
    rules = (TensorRule("layers.*", TensorFormat.Q4_0),)
    losses = {}
    for name, recipe in {
        "nearest": Recipe("n", rules, scales="minmax"),
        "gptq": Recipe("g", rules, rounding="gptq", importance=True),
        "awq": Recipe("a", rules, folds=("awq",), importance=True),
        "all": Recipe("a", rules, folds=("awq",), rounding="gptq", importance=True),
    }.items():
        compressed = compress_weights(spec, weights, recipe, samples[:11])
        candidate = ReferenceExecutor(graph, compressed.weights, num_blocks=8)
        losses[name] = compare_executors(executor, candidate, samples[11:]).mean_kl
    assert max(losses["gptq"], losses["all"]) < 0.8 * losses["nearest"]
    assert losses["awq"] < losses["nearest"]
