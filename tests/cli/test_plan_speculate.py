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
    [["--acceptance", "2"], ["--drafts", "0"], ["--draft-speed", "0"], ["--drafts", "x"], ["--threads", "0"]],
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
