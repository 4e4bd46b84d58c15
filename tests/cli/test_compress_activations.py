"""Activations and KV in recipes: what is emitted is run without being told, what no kernel runs is simulated only."""

import json
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.compress.activations import simulate, whole_batch
from vivace.compress.evaluate import EvaluationSettings, make_executor
from vivace.compress.recipe_file import find_recipe
from vivace.engine.build import EngineConfig, choose_precision
from vivace.execute.score import compare_executors
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear
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
    assert "run by quantize (8 bits, one scale a group)" in printed
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
    main(["compress", str(model), str(model.parent / "o.gguf"), "--recipe", "w8a8"])
    written, tokens = open_model(model.parent / "o.gguf"), open_model(model).spec.vocab_size
    window = [(7 * i + 5) % tokens for i in range(40)]
    windows = [np.array(window, np.int32)]
    executors = {bits: make_executor(written, EvaluationSettings(activation_bits=bits)) for bits in (None, 8, 12)}
    assert compare_executors(executors[None], executors[8], windows).mean_absolute_error == 0
    assert compare_executors(executors[None], executors[12], windows).mean_absolute_error > 0
    written.close()


@pytest.mark.parametrize(
    ("activations", "words"),
    [
        ("activations: {symmetric: false}", "zero points of groups"),
        ("activations: {granularity: tensor}", "change with the rows that share it"),
        ("activations: {bits: 12, granularity: token, symmetric: false}", "2 to 8 bits"),
        ("clip_activations: true", "for dynamic ranges"),
        ("clip_activations: true\nactivations: {mode: static, granularity: tensor}", "cut by their observer"),
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


DEPLOYED_SCHEMES = (
    "{granularity: token}",
    "{granularity: token, bits: 12}",
    "{granularity: token, symmetric: false}",
    "{granularity: token, symmetric: false, clip: 0.9}",
    "{mode: static, granularity: tensor, observer: percentile}",
    "{mode: static, granularity: tensor, symmetric: false}",
    "{mode: static, granularity: tensor, bits: 12}",
    "{clip: 0.9}",
    "{bits: 6}",
    "{bits: 5, granularity: token}\nclip_activations: true",
    "{bits: 12}\nclip_activations: true",
)


@pytest.mark.parametrize("activations", DEPLOYED_SCHEMES)
def test_every_scheme_with_a_kernel_is_written_and_run_as_it_was_simulated(
    model: Path, capsys: pytest.CaptureFixture[str], activations: str
) -> None:
    text, out = model.parent / "text.txt", model.parent / "o.gguf"
    asked = recipe(model.parent, f"activations: {activations}\n")
    options = ("--recipe", asked, "--calibrate-on", text)
    status, printed, err = run(capsys, "compress", model, out, *options)
    assert status == 0, err
    assert "run by quantize (" in printed
    written = open_model(out)
    scheme = find_recipe(str(asked)).activations
    assert scheme is not None
    asks = written.run_settings
    assert (asks.activation_bits, asks.inputs.granularity, asks.inputs.symmetric) == (
        scheme.bits, scheme.granularity, scheme.symmetric,
    )  # fmt: skip
    graph = build_graph(written.spec)
    buffers = {op.x for op in graph.ops if isinstance(op, Linear)}
    assert set(asks.inputs.ranges) == (buffers if scheme.mode == "static" else set())
    assert set(asks.inputs.clips) == (buffers if "clip" in activations else set())
    asked_for = {"clips": asks.inputs.clips, "kv_format": "f16"}
    simulated = simulate(graph, written.weights, scheme, 16, asks.inputs.ranges, **asked_for)
    deployed = make_executor(written, EvaluationSettings(), 16)
    plain = make_executor(written, EvaluationSettings(activation_bits=32), 16)
    near, far = [], []
    for token in range(9):  # each alone, so that a rounding that the order of sums has tipped stays where it is
        batch = whole_batch(np.array([29 * token + 5], np.int32))
        expected = simulated.forward(batch)
        near.append(np.abs(deployed.forward(batch) - expected).max())
        far.append(np.abs(plain.forward(batch) - expected).max())
    assert np.median(near) < 1e-3 * np.median(far)
    written.close()


def test_a_scheme_survives_another_compression_only_where_its_recipe_asks_for_it(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = model.parent / "a.gguf", model.parent / "b.gguf"
    asked = recipe(model.parent, "activations: {mode: static, granularity: tensor}\n")
    assert run(capsys, "compress", model, first, "--recipe", asked, "--calibrate-on", model.parent / "text.txt")[0] == 0
    assert run(capsys, "compress", first, second, "--recipe", "int8")[0] == 0
    found = open_model(second)
    assert found.run_settings == RunSettings()
    found.close()


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


def test_a_simulation_names_what_it_cannot_do(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = model.parent / "text.txt"
    status, _, err = run(capsys, "compress", model, model.parent / "o.gguf", "--simulate", text)
    assert (status, "writes no file" in err) == (2, True)
    status, _, err = run(capsys, "compress", model)
    assert (status, "no file to make" in err) == (2, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vivace.activation_bits", 9),
        ("vivace.activation_bits", "8"),
        ("vivace.kv_format", "f8"),
        ("vivace.activations.granularity", "channel"),
    ],
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
