"""The report of two tiny models: every part is there, the page is one file, and a worse model looks worse."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.compress.evaluate import EvaluationSettings
from vivace.evaluate.charts import grouped_bars, histogram
from vivace.evaluate.generation import compare_generation, repeated_share
from vivace.evaluate.render import render_html, render_markdown, verdict
from vivace.evaluate.report import QualityReport, ReportSettings, make_report

SETTINGS = ReportSettings(
    text=EvaluationSettings(window_tokens=32, num_windows=2, num_threads=1),
    task_items=4,
    answers=(2, 6),
    speed_tokens=(16, 4),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    write_gguf(folder / "model.gguf", replace(small_spec(num_layers=2), context_length=512))
    main(["compress", str(folder / "model.gguf"), str(folder / "small.gguf"), "--recipe", "int4-nearest"])
    return folder / "small.gguf", folder / "model.gguf"


@pytest.fixture(scope="module")
def report(models: tuple[Path, Path]) -> QualityReport:
    return make_report(*models, None, SETTINGS, lambda *_: None)


def test_every_part_is_measured(report: QualityReport) -> None:
    figures = report.as_dict()
    assert {"ppl", "ppl_ratio", "kld", "same_top", "bytes", "tasks", "generation", "speed"} <= set(figures)
    assert report.figures is not None
    assert report.figures.kld is not None
    assert report.figures.kld > 0
    assert report.tasks["choices-zh"].num_items == 4
    assert report.tasks["choices-en"].paired is not None
    assert report.generation is not None
    assert report.generation.reference is not None
    assert set(report.speed) == {"model", "reference"}
    assert report.speed["model"].memory_bytes > 1e6
    json.dumps(figures)


def test_the_page_is_one_file_and_holds_what_was_found(report: QualityReport) -> None:
    page = render_html(report, ["KL divergence is 9, the limit is 1"])
    assert page.count("<svg") == 4
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert f"{report.figures.kld:.4f}" in page  # type: ignore[union-attr]
    assert "Limit missed: KL divergence is 9" in page
    assert verdict(report)[0][1:] in page
    assert "small.gguf" in page


def test_a_model_that_is_larger_than_its_reference_is_not_called_smaller(report: QualityReport) -> None:
    assert report.figures is not None
    for own, words in ((500, "2.00x smaller than"), (2500, "2.50x as large as")):
        figures = replace(report.figures, bytes=own, reference_bytes=1000)
        assert words in render_html(replace(report, figures=figures))


def test_answers_of_a_model_cannot_break_the_page(report: QualityReport) -> None:
    page = render_html(replace(report, samples=(("<b>?", "<script>alert(1)</script>", None),)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_markdown_has_the_same_figures(report: QualityReport) -> None:
    text = render_markdown(report)
    assert f"| KL divergence | {report.figures.kld:.5g}" in text  # type: ignore[union-attr]
    assert "| choices-en | 4 |" in text
    assert "| model |" in text


def test_markdown_shows_plots_that_lie_beside_it_and_missed_limits(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a report.md"
    asked = ["evaluate", str(models[0]), "--against", str(models[1]), "--size", "32", "--windows", "2", "--quick"]
    assert main([*asked, "--only", "text,tasks", "--max-kld", "0", "--markdown", str(out), "--json"]) == 3
    figures = json.loads(capsys.readouterr().out)
    assert figures["text"] == "written by the reference"
    assert [sentence.split(" is ")[0] for sentence in figures["missed"]] == ["KL divergence"]
    text = out.read_text(encoding="utf-8")
    assert f"**Limit missed:** {figures['missed'][0]}." in text
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert links == ["a%20report-kl.svg", "a%20report-change.svg", "a%20report-tasks.svg"]
    for link in links:
        root = ElementTree.parse(tmp_path / link.replace("%20", " ")).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(root) > 3


def test_a_report_that_could_not_be_written_is_refused_before_anything_is_measured(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--html", "--markdown"):
        assert main(["evaluate", str(models[0]), option, str(tmp_path / "none" / "x")]) == 2
        assert "is not there" in capsys.readouterr().err


def test_marks_of_a_histogram_do_not_cover_one_another_and_stay_inside() -> None:
    drawn = histogram(np.full(9, 9.9), [("mean", 9.8), ("99 %", 9.9)], "nats")
    places = re.findall(r'<text class="strong" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"', drawn)
    assert [anchor for *_, anchor in places] == ["end", "end"]
    assert abs(float(places[0][1]) - float(places[1][1])) >= 12
    tallest = min(float(y) for y in re.findall(r'<rect class="bar" x="[\d.]+" y="([\d.]+)"', drawn))
    assert tallest > max(float(y) for _, y, _ in places)


def test_a_model_alone_has_a_report_too(models: tuple[Path, Path]) -> None:
    found = make_report(models[0], None, None, SETTINGS, lambda *_: None)
    page = render_html(found)
    assert "no reference was named" in page
    assert found.task_recovery is None
    assert found.as_dict()["kld"] is None
    assert "<svg" in page


def test_task_recovery_is_held_to_its_limit(models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", str(models[1]), "--against", str(models[1]), "--only", "tasks", "--task-items", "6"]
    assert main([*asked, "--min-task-recovery", "1", "--json"]) in (0, 3)  # 3 only when nothing was right
    figures = json.loads(capsys.readouterr().out)
    assert figures["task_recovery"] in (1.0, None)
    assert main([*asked, "--min-task-recovery", "1.01"]) == 3
    assert "recovery on tasks" in capsys.readouterr().err


def test_the_exact_setting_reads_the_weights_without_rounding_inputs(
    models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", str(models[1]), "--against", str(models[1]), "--only", "text,generation", "--size", "32"]
    assert main([*asked, "--windows", "2", "--threads", "1", "--activation-bits", "32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["kld"], figures["same_top"]) == (pytest.approx(0, abs=1e-12), 1.0)


def test_the_second_linear_kernel_is_measured_in_every_part_and_the_reference_keeps_its_own(
    models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", str(models[1]), "--against", str(models[1]), "--size", "32", "--windows", "2", "--json"]
    found = {}
    for weights in ("file", "int8"):
        assert main([*asked, "--only", "text,generation", "--weights", weights, "--threads", "1"]) == 0
        found[weights] = json.loads(capsys.readouterr().out)
    assert found["file"]["kld"] == pytest.approx(0, abs=1e-12)
    assert 0 < found["int8"]["kld"] < 0.1
    assert found["int8"]["reference_ppl"] == found["file"]["reference_ppl"]
    assert main([*asked, "--only", "text", "--weights", "int8", "--activation-bits", "32"]) == 2
    assert "requantised" in capsys.readouterr().err


def test_loops_and_lengths_are_seen() -> None:
    assert repeated_share([1, 2, 3]) == 0.0
    assert repeated_share([1, 2, 3, 4, 5, 6, 7, 8]) == 0.0
    assert repeated_share([1, 2] * 20) > 0.9
    looping = [((1, 2) * 20, False, "x")]
    short = [((1, 2, 3), True, "y")]
    found = compare_generation(looping, short, 40)
    assert (found.model.never_stop, found.model.loops) == (1.0, 1.0)
    assert found.reference is not None
    assert found.reference.loops == 0.0
    assert found.length_drift == pytest.approx(40 / 3 - 1)
    assert (found.same_tokens, found.identical) == (2.0, 0.0)


def test_charts_take_the_extremes() -> None:
    assert "<rect" in histogram(np.zeros(5), [("mean", 0.0)], "nats")
    assert "NaN" not in grouped_bars([("a&b", [("m", 0.0, 0.0, 0.0)])], 1.0, percent=True)
    assert "a&amp;b" in grouped_bars([("a&b", [("m", 0.5, 0.1, 0.9)])], 1.0, percent=True)
