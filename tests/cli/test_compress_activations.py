"""Activations and KV in recipes: what is emitted is run without being told, what no kernel runs is simulated only."""

import json
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.engine.build import EngineConfig, choose_precision
from vivace.execute.score import compare_executors
from vivace.files.open import open_model
from vivace.types.errors import ModelFileError
from vivace.types.run_settings import RunSettings

TEXT = "the sand and the one that is in the hand of those on the land, or at an end of it all. " * 12
WEIGHTS = "tensors: [{match: '*', format: Q8_0}]\ncalibration: {samples: 2, tokens: 32}\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf", small_spec(num_layers=2))
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "model.gguf"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def recipe(folder: Path, activations: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(WEIGHTS + activations)
    return path


@pytest.mark.parametrize(("preset", "kernel"), [("w8a8", "Q8Sym"), ("w4a8", "Q4Sym")])
def test_a_file_asks_for_the_activations_of_its_recipe(
    model: Path, capsys: pytest.CaptureFixture[str], preset: str, kernel: str
) -> None:
    out = model.parent / "out.gguf"
    status, printed, err = run(capsys, "compress", model, out, "--recipe", preset, "--samples", 2)
    assert status == 0, err
    assert f"run by {kernel}" in printed
    assert "run by quantize (8 bits)" in printed
    written = open_model(out)
    assert written.run_settings == RunSettings(8, None)
    assert choose_precision(written, EngineConfig()) == (8, "f16")
    assert choose_precision(written, EngineConfig(activation_bits=12)) == (12, "f16")
    written.close()


def test_bits_and_kv_of_a_yaml_recipe_reach_the_engine(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = recipe(model.parent, "activations: {bits: 8, mode: dynamic, granularity: group}\nkv: {format: int8}\n")
    figures = run(capsys, "compress", model, model.parent / "o.gguf", "--recipe", asked, "--json")[1]
    assert json.loads(figures)["kv_format"] == "int8"
    written = open_model(model.parent / "o.gguf")
    assert written.run_settings == RunSettings(8, "int8")
    assert choose_precision(written, EngineConfig()) == (8, "int8")
    written.close()


def test_evaluation_runs_a_file_as_it_asks(model: Path) -> None:
    from vivace.compress.evaluate import EvaluationSettings, make_executor

    main(["compress", str(model), str(model.parent / "o.gguf"), "--recipe", "w8a8"])
    written, tokens = open_model(model.parent / "o.gguf"), open_model(model).spec.vocab_size
    window = [(7 * i + 5) % tokens for i in range(40)]
    import numpy as np

    windows = [np.array(window, np.int32)]
    executors = {bits: make_executor(written, EvaluationSettings(activation_bits=bits)) for bits in (None, 8, 12)}
    assert compare_executors(executors[None], executors[8], windows).mean_absolute_error == 0
    assert compare_executors(executors[None], executors[12], windows).mean_absolute_error > 0
    written.close()


@pytest.mark.parametrize(
    ("activations", "words"),
    [
        ("activations: {mode: static, granularity: tensor, observer: percentile}", "static-percentile-8"),
        ("activations: {granularity: token}", "dynamic-token-8"),
        ("activations: {bits: 6}", "dynamic-group-6"),
        ("activations: {symmetric: false}", "asymmetric"),
        ("activations: {clip: 0.9}", "clip0.9"),
        ("clip_activations: true", "by a share of its own"),
        ("activations: {observer: best}", "observer 'best'"),
        ("activations: {bits: 10}", "10 bits"),
        ("activations: 8", "not a mapping"),
        ("kv: {format: int3}", "KV format 'int3'"),
        ("kv: {bits: 8}", "field 'bits'"),
    ],
)
def test_what_no_kernel_runs_is_not_written(
    model: Path, capsys: pytest.CaptureFixture[str], activations: str, words: str
) -> None:
    asked = recipe(model.parent, activations)
    status, _, err = run(capsys, "compress", model, model.parent / "o.gguf", "--recipe", asked)
    assert (status, err.count("\n")) == (2, 1)
    assert words in err
    assert not (model.parent / "o.gguf").exists()


@pytest.mark.parametrize("observer", ["minmax", "moving-average", "percentile", "mse", "kl", "importance"])
def test_every_observer_is_reached_by_a_recipe_and_simulated(
    model: Path, capsys: pytest.CaptureFixture[str], observer: str
) -> None:
    text = model.parent / "text.txt"
    asked = recipe(model.parent, f"activations: {{mode: static, granularity: tensor, observer: {observer}}}\n")
    before = sorted(model.parent.iterdir())
    status, printed, err = run(
        capsys, "compress", model, "--simulate", text, "--recipe", asked, "--calibrate-on", text, "--json"
    )
    assert status == 0, err
    figures = json.loads(printed)
    assert figures["activations"] == f"static-{observer}-8"
    assert 0 < figures["weights"]["kld"] < figures["whole"]["kld"]
    assert sorted(model.parent.iterdir()) == before


def test_a_recipe_searches_clips_and_says_what_they_are(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = model.parent / "text.txt"
    found = {}
    for clips in ("false", "true"):
        wanted = f"clip_activations: {clips}\nactivations: {{bits: 4, granularity: token}}\n"
        asked = recipe(model.parent, wanted)
        options = ("--simulate", text, "--recipe", asked, "--calibrate-on", text, "--samples", 2, "--tokens", 64)
        status, printed, err = run(capsys, "compress", model, *options, "--json")
        assert status == 0, err
        found[clips] = json.loads(printed)
    assert found["false"]["clips"] == {}
    assert all(0.5 <= ratio <= 1 for ratio in found["true"]["clips"].values())
    assert any(ratio < 1 for ratio in found["true"]["clips"].values())
    status, _, err = run(
        capsys, "compress", model, "--simulate", text, "--calibrate-on", text, "--recipe",
        recipe(model.parent, "clip_activations: true\nactivations: {mode: static, granularity: tensor}\n"),
    )  # fmt: skip
    assert (status, "for dynamic ranges" in err) == (2, True)


def test_a_simulation_names_what_it_cannot_do(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = model.parent / "text.txt"
    status, _, err = run(capsys, "compress", model, model.parent / "o.gguf", "--simulate", text)
    assert (status, "writes no file" in err) == (2, True)
    status, _, err = run(capsys, "compress", model)
    assert (status, "no file to make" in err) == (2, True)


@pytest.mark.parametrize(
    ("key", "value"), [("vivace.activation_bits", 4), ("vivace.activation_bits", "8"), ("vivace.kv_format", "f8")]
)
def test_a_file_that_asks_for_what_vivace_lacks_is_refused(tmp_path: Path, key: str, value: int | str) -> None:
    from vivace.files.gguf import GgufFile
    from vivace.files.gguf_writer import TensorToWrite, write_gguf_file

    write_gguf(tmp_path / "m.gguf", small_spec(num_layers=1))
    file = GgufFile(tmp_path / "m.gguf")
    metadata = {name: found.decode() if hasattr(found, "decode") else found for name, found in file.metadata.items()}
    tensors = [
        TensorToWrite(name, tensor.shape, tensor.format, lambda name=name: file.tensor_bytes(name))
        for name, tensor in file.tensors.items()
    ]
    write_gguf_file(tmp_path / "wrong.gguf", {**metadata, key: value}, tensors)
    with pytest.raises(ModelFileError):
        open_model(tmp_path / "wrong.gguf")
