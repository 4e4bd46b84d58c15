"""`vivace compress` and `vivace evaluate` from their command lines to files, figures and exit statuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.hf_folders import hf_spec, write_hf_folder
from vivace.cli.main import main
from vivace.files.open import open_model
from vivace.types.weights import TensorFormat

_TEXTS = ("--calibrate-on", "{text}", "--like", "{text}")
TEXT = "the sand and the one that is in the hand of those on the land, or at an end of it all. " * 60
RECIPE = """
name: mine
scales: mse
fold: awq
rounding: gptq
importance: true
calibration: {samples: 2, tokens: 32, seed: 1}
tensors:
  - {match: embed.weight, format: F16}
  - {match: "layers.0.*", format: keep}
  - {match: "layers.*", format: q4_0, bits: 3, group_size: 0}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf", small_spec(num_layers=2))
    return tmp_path / "model.gguf"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def compress_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    status, out, err = run(capsys, "compress", *arguments, "--json")
    assert status == 0, err
    figures: dict[str, object] = json.loads(out)
    return figures


@pytest.mark.parametrize("recipe", ["int8", "int4-fast", "int4"])
def test_a_compressed_file_is_what_it_says(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    out = tmp_path / "out.gguf"
    samples = ("--samples", 2) if recipe == "int4" else ()
    figures = compress_json(capsys, model, out, "--recipe", recipe, *samples)
    assert figures["file_bytes"] == out.stat().st_size
    written = open_model(out)
    wanted = TensorFormat.Q8_0 if recipe == "int8" else TensorFormat.Q4_0
    assert written.weights.info("layers.0.mlp.down.weight").format == wanted
    assert figures["tensor_bytes"] == sum(written.weights.info(n).num_bytes for n in written.weights.names())
    assert figures["quantized_share"] == 1.0
    tensors = figures["tensors"]
    assert isinstance(tensors, list)
    assert {row["kernel"] for row in tensors} <= {"Q4Sym", "Q8Sym", "float_panel"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "out.gguf"]
    written.close()


def test_a_folder_is_compressed_by_a_recipe_of_ones_own(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hf_folder(tmp_path / "folder", hf_spec(num_layers=2))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    status, out, err = run(
        capsys, "compress", tmp_path / "folder", tmp_path / "o.gguf", "--recipe", tmp_path / "mine.yaml",
        "--calibrate-on", text,
    )  # fmt: skip
    assert status == 0
    assert "run by Q4Sym" in out
    assert "no kernel for 3 bits" in err
    written = open_model(tmp_path / "o.gguf")
    assert written.weights.info("embed.weight").format == TensorFormat.F16
    assert written.weights.info("layers.0.mlp.up.weight").format == TensorFormat.F32
    assert len(np.unique(written.weights.dequantize("layers.1.mlp.up.weight")[0])) <= 8
    assert written.vocabulary is not None
    written.close()


def test_mixed_precision_keeps_to_its_budget(
    tmp_path: Path, model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    figures = compress_json(
        capsys, model, out, "--recipe", "mixed", "--bits-per-weight", 6, "--calibrate-on", text, "--samples", 2,
        "--plot", tmp_path / "plot.png",
    )  # fmt: skip
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    written = open_model(out)
    infos = [written.weights.info(name) for name in written.weights.names()]
    matrices = [info for info in infos if len(info.shape) == 2]
    assert sum(info.num_bytes for info in matrices) * 8 <= 6 * sum(np.prod(info.shape) for info in matrices)
    assert len({info.format for info in matrices}) > 1
    sensitivity = figures["sensitivity"]
    assert isinstance(sensitivity, dict)
    assert sensitivity["layers.0.mlp.down"] > 0
    written.close()


def test_keys_and_values_share_the_bytes_of_a_mixed_layout(
    tmp_path: Path, model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--recipe", "mixed", "--bits-per-weight", 7, "--calibrate-on", text, "--samples", 2)
    long = compress_json(capsys, model, tmp_path / "long.gguf", *asked, "--kv-tokens", 48)
    without = compress_json(capsys, model, tmp_path / "without.gguf", *asked)
    assert long["kv_format"] in {"f16", "bf16", "int8"}  # what heads of 16 lanes can be held by
    assert without["kv_format"] is None
    assert isinstance(long["sensitivity"], dict)
    assert "kv" in long["sensitivity"]
    assert int(str(long["tensor_bytes"])) < int(str(without["tensor_bytes"]))
    status, _, err = run(capsys, "compress", model, tmp_path / "x.gguf", "--kv-tokens", 5)
    assert status != 0
    assert "--kv-tokens needs a budget" in err


def test_evaluate_compares_and_holds_to_limits(
    tmp_path: Path, model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    compress_json(capsys, model, out, "--recipe", "int4-nearest")
    asked = ("evaluate", out, "--against", model, "--text", text, "--size", 32, "--windows", 3, "--only", "text")
    status, printed, _ = run(capsys, *asked, "--json", "--max-kld", 50, "--markdown", tmp_path / "r.md")
    assert status == 0
    figures = json.loads(printed)
    assert figures["bytes"] < figures["reference_bytes"] / 3
    assert figures["kld"] > 0
    assert 0 < figures["same_top"] <= 1
    assert figures["ppl_ratio"] == pytest.approx(figures["ppl"] / figures["reference_ppl"])
    assert figures["num_tokens"] == 3 * 15
    assert "| KL divergence |" in (tmp_path / "r.md").read_text()
    status, _, err = run(capsys, *asked, "--max-kld", 0)
    assert status == 3
    assert "limit missed" in err
    status, printed, _ = run(capsys, "evaluate", model, "--text", text, "--size", 32, "--only", "text", "--json")
    assert status == 0
    assert json.loads(printed)["kld"] is None


def test_a_model_against_itself_loses_nothing(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run(
        capsys, "evaluate", model, "--against", model, "--text", text, "--size", 32, "--only", "text", "--json",
        "--min-recovery", 1, "--max-ppl-delta", 0,
    )  # fmt: skip
    figures = json.loads(printed)
    assert (status, figures["kld"], figures["same_top"], figures["ppl_ratio"]) == (0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compress", "{model}", "{tmp}/o.bin"), "does not end in .gguf"),
        (("compress", "{model}", "{model}"), "is the model itself"),
        (("compress", "{model}", "{text}.gguf"), "exists already"),
        (("compress", "{model}", "{tmp}/none/o.gguf"), "folder"),
        (("compress", "{model}", "{tmp}/o.gguf", "--recipe", "best"), "no recipe 'best'"),
        (("compress", "{model}", "{tmp}/o.gguf", "--mix", "chapter"), "needs text"),
        (("compress", "{model}", "{tmp}/o.gguf", "--recipe", "mixed"), "belong together"),
        (("compress", "{model}", "{tmp}/o.gguf", "--like", "{text}"), "--like needs text"),
        (("compress", "{model}", "{tmp}/o.gguf", "--samples", "0"), "Calibration on 0 samples"),
        (("compress", "{model}", "{tmp}/o.gguf", "--calibrate-on", "{text}", "--mix", "chapter"), "labelled 'chat'"),
        (("compress", "{model}", "{tmp}/o.gguf", "--calibrate-on", "{tmp}/none"), "does not exist"),
        (("compress", "{text}", "{tmp}/o.gguf"), "not a GGUF file"),
        (("compress", "doctor", "{model}", *_TEXTS, "--samples", "3"), "at least 4 windows"),
        (("evaluate", "{model}", "--text", "{tmp}/none"), "cannot be read"),
        (("evaluate", "{model}", "--text", "{model}"), "not UTF-8"),
        (("evaluate", "{model}", "--text", "{text}", "--max-kld", "1"), "needs a reference"),
        (("evaluate", "{model}", "--text", "{text}.gguf"), "tokens"),
        (("evaluate", "{model}", "--text", "{text}", "--windows", "0"), "at least 1"),
        (("evaluate", "{model}", "--text", "{text}", "--only", "looks"), "no part 'looks'"),
        (("evaluate", "{model}", "--tasks", "{tmp}/none"), "no folder of tasks"),
        (("evaluate", "{model}", "--tasks", "{tmp}"), "no task files"),
        (("evaluate", "{model}", "--against", "{model}", "--only", "tasks", "--max-kld", "1"), "needs the part 'text'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path,
    model: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    (tmp_path / "text.txt.gguf").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    status, out, err = run(capsys, *(a.format(model=model, text=text, tmp=tmp_path) for a in arguments))
    assert status == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "text.txt.gguf").read_text() == "mine"


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("[1", "no YAML"),
        ("name: x", "no list 'tensors'"),
        ("tensors: [{match: '*'}]", "'match' or 'format'"),
        ("tensors: [{match: '*', format: Q9}]", "format 'Q9'"),
        ("tensors: [{match: '*', format: Q4_0, third: top}]", "third 'top'"),
        ("tensors: [{match: '*', format: Q4_0, bits: four}]", "type int"),
        ("{tensors: [{match: '*', format: Q4_0}], rounding: best}", "rounding 'best'"),
        ("{tensors: [{match: '*', format: Q4_0}], extra: 1}", "field 'extra'"),
        ("{tensors: [{match: '*', format: Q4_0, bits: 5}]}", "holds 4 bits"),
        ("{tensors: [{match: '*', format: Q4_0, group_size: 48}]}", "48"),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], yaml: str, words: str
) -> None:
    (tmp_path / "r.yaml").write_text(yaml)
    status, _, err = run(capsys, "compress", model, tmp_path / "o.gguf", "--recipe", tmp_path / "r.yaml")
    assert status == 2
    assert words in err
    assert not (tmp_path / "o.gguf").exists()


def test_time_and_memory_are_told_before_the_work_and_held_against_what_it_took(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("compress", model, tmp_path / "out.gguf", "--recipe", "int4-fast")
    status, out, _ = run(capsys, *asked, "--estimate")
    assert status == 0
    assert out.startswith("about ")
    assert "MB of memory" in out
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    status, out, err = run(capsys, *asked)
    assert status == 0
    assert err.startswith("vivace: about ")
    assert "took" in out.splitlines()[-1]
    assert "foretold" in out.splitlines()[-1]
    figures = compress_json(capsys, *asked[1:], "--force")
    assert figures["predicted_tensor_bytes"] == figures["tensor_bytes"]
    assert all(figures[name] for name in ("predicted_s", "predicted_peak_bytes", "seconds", "peak_bytes"))


@pytest.mark.parametrize(
    "recipe", [("mixed", "--bits-per-weight", 6, "--ms-per-token", 9), ("smallest-within:kl:0.5",)]
)
def test_searches_and_the_doctor_are_told_before_the_work_as_well(
    tmp_path: Path, model: Path, text: Path, capsys: pytest.CaptureFixture[str], recipe: tuple[str, ...]
) -> None:
    sizes = ("--samples", 8, "--tokens", 32, "--device", "cpu", "--json")
    asked = (model, tmp_path / "out.gguf", "--calibrate-on", text, "--like", text, *sizes, "--recipe", *recipe)
    status, out, err = run(capsys, "compress", *asked, "--estimate")
    assert status == 0, err
    told = json.loads(out)
    assert {"doctor", "inputs", "parts"} <= set(told["stages"])
    assert told["predicted_s"] == pytest.approx(sum(told["stages"].values()))
    assert ("comparing" in told["stages"]) == recipe[0].startswith("smallest")
    assert not (tmp_path / "out.gguf").exists()
    figures = compress_json(capsys, *asked)
    assert figures["predicted_s"] > 0
    if "--bits-per-weight" in recipe:
        assert figures["predicted_tensor_bytes"] == pytest.approx(figures["tensor_bytes"], rel=0.02)
