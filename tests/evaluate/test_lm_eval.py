"""The harness asks a vivace model: its scores are the model's own, for endings, whole texts and written answers."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.types.errors import ConfigError

TASK = """
task: lively_endings
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


def test_a_missing_harness_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivace.cli.evaluate_harness.find_spec", lambda name: None)
    assert main(["evaluate", "harness", "nothing.gguf", "--tasks", "x"]) != 0
    assert "vivace[lm-eval]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval", exc_type=ImportError)
    from vivace.evaluate.lm_eval_model import VivaceLM

    path = tmp_path_factory.mktemp("lm_eval") / "model.gguf"
    write_gguf(path, replace(small_spec(num_layers=2), context_length=64))
    return VivaceLM(path, threads=1)


def _asked(*arguments: object) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def test_a_whole_text_is_scored_as_the_continuation_of_nothing(model: Any) -> None:
    text = "the sand and the land is at an end"
    (rolling,) = model.loglikelihood_rolling([_asked(text)])
    ((plain, _),) = model.loglikelihood([_asked("", text)], disable_tqdm=True)
    assert rolling == pytest.approx(plain, abs=1e-9)
    pairs = [_asked("the sand", ending) for ending in (" and the land", " is")]
    alone = [model.loglikelihood([pair], disable_tqdm=True)[0] for pair in pairs]
    assert model.loglikelihood(pairs, disable_tqdm=True) == alone


def test_a_text_longer_than_the_context_is_read_in_windows(model: Any) -> None:
    long = "the sand and the land " * 40
    (total,) = model.loglikelihood_rolling([_asked(long)])
    assert -1e5 < total < 0
    ((tail, _),) = model.loglikelihood([_asked(long, " end")], disable_tqdm=True)
    assert -1e3 < tail < 0


def test_answers_are_greedy_and_end_before_a_stop(model: Any) -> None:
    asked = {"until": [], "max_gen_toks": 12, "do_sample": False}
    (whole,) = model.generate_until([_asked("the sand", asked)])
    assert whole
    stop = whole[len(whole) // 2]
    (cut,) = model.generate_until([_asked("the sand", asked | {"until": [stop]})])
    assert cut == whole.split(stop)[0]
    with pytest.raises(ConfigError, match="do_sample"):
        model.generate_until([_asked("the sand", {"do_sample": True, "temperature": 0.7})])


@pytest.mark.slow
def test_a_task_of_the_harness_agrees_with_our_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval", exc_type=ImportError)
    questions = [
        {"question": q, "choices": [" sand", " the hand of all"], "answer": n % 2} for n, q in enumerate("abcd")
    ]
    data = tmp_path / "own.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in questions))
    (tmp_path / "task.yaml").write_text(TASK.format(data=data))
    write_gguf(tmp_path / "model.gguf", replace(small_spec(num_layers=2), context_length=64))
    command = ["evaluate", "harness", str(tmp_path / "model.gguf"), "--tasks", "lively_endings", "--json"]
    assert main([*command, "--include-path", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)["lively_endings"]
    assert 0 <= found["acc_norm,none"] <= 1
    assert main([*command[:-3], "--tasks", "no_such_task"]) != 0
    assert "no_such_task" in capsys.readouterr().err
