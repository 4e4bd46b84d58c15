"""Levels of nested weights in the report: each is read as the engine would run it, by bands of positions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.compress.evaluate import EvaluationSettings, make_executor, read_columns, summarise
from vivace.evaluate.levels import LEVEL_POLICIES, bands_of, levelled, read_levels
from vivace.evaluate.render import render_html, render_markdown
from vivace.evaluate.report import ReportSettings, make_report
from vivace.files.open import open_model
from vivace.types.errors import ConfigError

TEXT = EvaluationSettings(window_tokens=160, num_windows=2, num_threads=1)
RECIPE = "name: n\nscales: minmax\ntensors:\n  - {match: 'layers.*', format: N8_0}\n  - {match: '*', format: Q8_0}\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    write_gguf(folder / "model.gguf", replace(small_spec(num_layers=3), context_length=512))
    (folder / "n.yaml").write_text(RECIPE, encoding="utf-8")
    made = folder / "nested.gguf"
    assert main(["compress", str(folder / "model.gguf"), str(made), "--recipe", str(folder / "n.yaml")]) == 0
    return made, folder / "model.gguf"


def test_every_level_is_measured_in_every_band(models: tuple[Path, Path]) -> None:
    settings = ReportSettings(text=TEXT, parts=("text",), levels=True)
    report = make_report(*models, None, settings, lambda *_: None)
    rows = {(band.rows, band.begin, band.end): band for band in report.levels}
    assert {name for name, _, _ in rows} == {"full", "mixed", "low", "chapter"}
    positions = max(end for _, _, end in rows)
    full, mixed, low = (rows[name, 0, positions] for name in ("full", "mixed", "low"))
    assert 0 < full.kld < mixed.kld < low.kld
    assert rows["chapter", 0, 128].kld == pytest.approx(rows["full", 0, 128].kld)  # nothing mixed was before them
    text = render_markdown(report)
    assert f"| low | 0 to {positions - 1} | {low.ppl:.3f} |" in text
    assert "Levels of precision" in render_html(report)
    assert json.loads(json.dumps(report.as_dict()))["levels"][0]["rows"] == "full"


def test_bands_add_up_to_the_whole(models: tuple[Path, Path]) -> None:
    made, source = (open_model(path) for path in models)
    try:
        windows = [np.random.default_rng(seed).integers(0, 320, 150).astype(np.int32) for seed in range(2)]
        nested, reference = make_executor(made, TEXT), make_executor(source, TEXT)
        found = read_levels(nested, reference, windows, lambda *_: None)
        columns = read_columns(levelled(nested, LEVEL_POLICIES["low"]), windows, reference, lambda *_: None, first=0)
        parts = [band for band in found if band.rows == "low"]
        whole = parts.pop()
        assert (whole.begin, whole.end, whole.num_tokens) == (0, 149, 298)
        assert sum(band.num_tokens for band in parts) == whole.num_tokens
        assert sum(band.kld * band.num_tokens for band in parts) == pytest.approx(whole.kld * whole.num_tokens)
        assert whole.kld == summarise(columns, 0).kld
        with pytest.raises(ConfigError, match="one length"):
            read_levels(nested, reference, [windows[0], windows[1][:50]], lambda *_: None)
    finally:
        made.close()
        source.close()


def test_a_report_at_a_level_is_that_levels(models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", str(models[0]), "--against", str(models[1]), "--only", "text,generation", "--size", "64"]
    found = {}
    for words in ("off", "bands:0=full", "bands:0=low"):
        assert main([*asked, "--windows", "2", "--threads", "1", "--precision", words, "--json"]) == 0
        found[words] = json.loads(capsys.readouterr().out)
    assert found["off"]["kld"] == found["bands:0=full"]["kld"] < found["bands:0=low"]["kld"]
    assert found["off"]["reference_ppl"] == found["bands:0=low"]["reference_ppl"]


def test_a_model_without_levels_is_refused(models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    plain = str(models[1])
    for more in (["--levels", "--against", plain], ["--precision", "bands:0=low"]):
        assert main(["evaluate", plain, "--only", "text", *more]) == 2
        assert "no nested weights" in capsys.readouterr().err
    exact = ["--activation-bits", "32", "--levels", "--against", plain]
    assert main(["evaluate", str(models[0]), "--only", "text", *exact]) == 2
    assert "have no levels" in capsys.readouterr().err
    assert main(["evaluate", str(models[0]), "--levels", "--only", "text"]) == 2
    assert "held against a reference" in capsys.readouterr().err
    assert main(["evaluate", str(models[0]), "--levels", "--only", "tasks", "--against", plain]) == 2
    assert "needs the part 'text'" in capsys.readouterr().err


def test_bands_end_where_positions_do() -> None:
    assert bands_of(100) == [(0, 100)]
    assert bands_of(128) == [(0, 128)]
    assert bands_of(600) == [(0, 128), (128, 512), (512, 600), (0, 600)]
