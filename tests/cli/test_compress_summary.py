"""What `vivace compress` says of its file: every format's kernel, and in words what was done otherwise than asked."""

import json
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.compress.containers import CONTAINERS, KERNELS
from vivace.types.weights import TensorFormat

TEXT = "the sand and the one that is in the hand of those on the land, or at an end of it all. " * 8


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf", small_spec(num_layers=2))
    return tmp_path / "model.gguf"


def run(
    capsys: pytest.CaptureFixture[str], model: Path, recipe: str, *arguments: object
) -> tuple[int, dict[str, object], str]:
    """Status, figures of --json, and what stood on standard error."""
    (model.parent / "r.yaml").write_text(recipe)
    words = ["compress", model, model.parent / "out.gguf", "--recipe", model.parent / "r.yaml", "--json", *arguments]
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else {}, captured.err


def test_every_format_has_a_kernel_and_no_container_lacks_one() -> None:
    assert set(KERNELS) == set(TensorFormat)
    assert all(KERNELS[format] == row.kernel for format, row in CONTAINERS.items())


def test_figures_name_the_kernel_of_every_tensor_kept_ones_too(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "tensors: [{match: layers.0.*, format: keep}, {match: layers.*, format: Q8_M}]\n"
    status, figures, err = run(capsys, model, rules + "activations: {granularity: token}\nkv: {format: int8}\n")
    assert status == 0, err
    tensors = figures["tensors"]
    assert isinstance(tensors, list)
    kernels = {row["name"]: row["kernel"] for row in tensors}
    assert kernels["layers.0.mlp.down.weight"] == "float_panel"  # the source's own is F32
    assert kernels["layers.1.mlp.down.weight"] == "Q8Min"
    assert all(kernels.values())
    activations = figures["activations"]
    assert isinstance(activations, dict)
    assert activations["scheme"] == "dynamic-token-8" and "dot products" in activations["kernel"]
    assert figures["notes"] == []
    words = ["compress", model, model.parent / "two.gguf", "--recipe", model.parent / "r.yaml"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "run by Q8Min" in said and "kept" in said and "run by float_panel" in said
    assert "dynamic-token-8, run by quantize" in said and "int8, run by the attention kernels" in said


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("{match: layers.*, format: Q4_0, bits: 3}", "3-bit codes stored in Q4_0"),
        ("{match: layers.*, format: Q4_0, bits: 2}", "2-bit codes stored in Q4_0"),
        ("{match: layers.*, format: Q8_M, bits: 6}", "6-bit codes stored in Q8_M"),
        ("{match: layers.*, format: Q8_0}, {match: layer.*, format: Q4_0}", "the rule for layer.* decides over no"),
        (
            "{match: layers.*, format: Q8_0}, {match: layers.1.*, format: Q4_0}",
            "the rule for layers.1.* decides over no",
        ),
    ],
)
def test_what_is_done_otherwise_than_asked_is_said(
    model: Path, capsys: pytest.CaptureFixture[str], rules: str, words: str
) -> None:
    status, figures, err = run(capsys, model, f"tensors: [{rules}]\n")
    assert status == 0, err
    notes = figures["notes"]
    assert isinstance(notes, list) and len(notes) == 1 and words in notes[0]


def test_a_bias_correction_without_a_bias_is_no_secret(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "tensors: [{match: layers.*, format: Q8_0}]\nbias_correction: true\n"
    status, figures, err = run(capsys, model, recipe, "--samples", 1, "--tokens", 16)
    assert status == 0, err
    assert figures["notes"] == ["bias_correction did nothing: no linear of this model has a bias"]


def test_rules_for_ends_that_a_model_lacks_are_no_news(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = "{match: lm_head.weight, format: Q8_0}, {match: embed.weight, format: Q8_0}"
    status, figures, err = run(capsys, model, f"tensors: [{ends}, {{match: '*', format: Q4_0}}]")
    assert status == 0, err
    assert figures["notes"] == []


def test_a_text_that_ends_before_the_windows_do_is_told_of(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--calibrate-on", tmp_path / "text.txt", "--tokens", 32)
    rules = "tensors: [{match: layers.*, format: Q4_0}]\nrounding: gptq\n"
    status, figures, err = run(capsys, model, rules, *text, "--samples", 5000)
    assert status == 0, err
    drawn, notes = figures["samples"], figures["notes"]
    assert isinstance(drawn, int) and isinstance(notes, list) and 1 < drawn < 5000
    assert f"calibrated on {drawn} windows" in notes[0] and "5000 windows of 32 tokens were asked for" in notes[0]
    status, figures, err = run(capsys, model, rules, *text, "--samples", 2, "--force")
    assert (figures["samples"], figures["notes"]) == (2, [])


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("tensors: [{match: blocks.*, format: Q4_0}]", "nothing would be done. Matrices have names such as"),
        ("tensors: [{match: layers.*, format: Q4_0, bits: 0}]", "0 bits"),
        ("tensors: [{match: layers.*, format: Q4_0}]\ncolour: red", "Known are name, scales, fold, rounding"),
        ("tensors: [{match: layers.*, format: Q4_0}]\nfold: [awq, hadamard]", "Each once, hadamard first"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_before_the_work(
    model: Path, capsys: pytest.CaptureFixture[str], recipe: str, words: str
) -> None:
    status, _, err = run(capsys, model, recipe)
    assert status == 2 and words in err
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.gguf", "r.yaml"]
