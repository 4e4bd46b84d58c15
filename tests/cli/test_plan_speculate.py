"""`vivace plan speculate`."""

import json
from pathlib import Path

import pytest

from vivace.cli.main import main


def test_the_chapters_figure_and_the_right_one_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "speculate"]) == 0
    shown = capsys.readouterr().out
    assert "2.71x" in shown and "1.98x" in shown and "look-up" in shown


def test_json_has_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "speculate", "--acceptance", "0.5", "--drafts", "3", "--draft-speed", "inf", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["expected_tokens"] == pytest.approx(1.875)
    assert fields["draft_speed"] is None and fields["rows"][-1]["draft_speed"] is None
    assert fields["step_ms"] is None


@pytest.mark.parametrize(
    "options",
    [["--acceptance", "2"], ["--drafts", "0"], ["--draft-speed", "0"], ["--drafts", "x"], ["--threads", "0"]]
    + [["--draft", "some.gguf"], ["--draft-sizes", "10M"]]
    + [["--model", "m", "--draft-sizes", sizes] for sizes in ("ten", "10M:2", "10M:x", "10M,,30M", "0M")],
)
def test_numbers_that_can_never_work_are_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "speculate", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vivace: error: ") and error.count("\n") == 1


def test_the_steps_of_a_model_are_timed(smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "speculate", "--model", str(smollm2_path), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert min(fields["step_ms"].values()) > 0 and "1" in fields["step_ms"]
    assert fields["expected"] > 0


def test_a_table_says_which_draft_size_pays(smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "speculate", "--model", str(smollm2_path), "--draft", str(smollm2_path)]
    assert main([*asked, "--draft-sizes", "10M,60M:0.01", "--json"]) == 0
    small, large, own = json.loads(capsys.readouterr().out)["draft_sizes"]
    assert (small["draft"]["name"], small["draft"]["acceptance"]) == ("10M", 0.7)
    assert 5 * small["draft"]["num_bytes"] < large["draft"]["num_bytes"] < own["draft"]["num_bytes"] < 100e6
    assert 0 < small["draft"]["cost"] < large["draft"]["cost"] and not large["pays"]
    assert own["draft"]["is_measured"] and own["draft"]["acceptance"] == 1.0  # a model foresees itself
    assert not small["draft"]["is_measured"]


def test_sizes_that_are_not_named_are_shares_of_the_model(
    smollm2_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "speculate", "--model", str(smollm2_path)]) == 0
    shown = capsys.readouterr().out
    assert "8.41M" in shown and "67.3M" in shown
    assert "none of these draft models pays" in shown or "pays most" in shown  # a noisy machine may err


def test_a_draft_of_another_vocabulary_is_refused_before_anything_is_timed(
    smollm2_path: Path, gemma3_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "speculate", "--model", str(smollm2_path), "--draft", str(gemma3_path)]) == 2
    error = capsys.readouterr().err
    assert "tokens and the model" in error and error.count("\n") == 1
