"""Tuning of scales after rounding: what it lowers and leaves, that it repeats itself, what it says without torch."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.models import random_windows, uneven_model, write_uneven_gguf
from factories.tiny_models import ARCHITECTURES
from vivace.cli.main import main
from vivace.compress import tuning
from vivace.compress.checkpoint import Checkpoint
from vivace.compress.containers import CONTAINERS
from vivace.compress.device import NumpyDevice
from vivace.compress.estimate import estimate_file
from vivace.compress.estimate_tuning import probe_tuning
from vivace.compress.layout import plan_layout
from vivace.compress.pipeline import CompressedModel, compress_weights
from vivace.compress.recipe import PRESETS, CalibrationSettings, Recipe, TensorRule, TuningSettings
from vivace.compress.recipe_file import find_recipe
from vivace.compress.save import compress_file
from vivace.compress.tuning import without_missing
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.numerics.formats import FORMATS
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
LAYERS = TensorRule("layers.*", TensorFormat.Q4_0, bits=3, group_size=64)
DOWN = TensorRule("layers.*.mlp.down.weight", TensorFormat.Q4_0, bits=3)  # its rows of 96 take no groups of 64
SETTINGS = TuningSettings(epochs=12, rate=1e-2)
TUNED = Recipe("tuned", (DOWN, LAYERS), importance=True, tuning=SETTINGS)


def compressed(
    recipe: Recipe = TUNED, architecture: str = "llama", checkpoint: Checkpoint | None = None
) -> CompressedModel:
    spec, weights = uneven_model(architecture)
    return compress_weights(spec, weights, recipe, random_windows(spec, count=16), checkpoint=checkpoint)


def every_byte(model: CompressedModel) -> list[bytes]:
    return [model.weights.raw(name).tobytes() for name in model.weights.names()]


@needs_torch
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tuning_loses_less_on_text_it_has_not_seen(architecture: str) -> None:
    spec, weights = uneven_model(architecture)
    exact = ReferenceExecutor(build_graph(spec), weights, num_blocks=3)
    lost = []
    for recipe in (replace(TUNED, tuning=None), TUNED):
        found = compressed(recipe, architecture)
        candidate = ReferenceExecutor(build_graph(spec), found.weights, num_blocks=3)
        lost.append(compare_executors(exact, candidate, random_windows(spec, seed=9)).mean_kl)
    assert found.tuning is not None and found.tuning.after < found.tuning.before
    assert lost[1] < 0.95 * lost[0]


@needs_torch
def test_codes_stay_and_groups_keep_one_scale() -> None:
    before, after = compressed(replace(TUNED, tuning=None)).weights, compressed().weights
    moved = 0
    for name in before.names():
        if before.info(name).format is not TensorFormat.Q4_0:
            continue
        blocks = [held.raw(name).reshape(-1, FORMATS[TensorFormat.Q4_0].block_bytes) for held in (before, after)]
        np.testing.assert_array_equal(blocks[0][:, 2:], blocks[1][:, 2:])
        moved += int((blocks[0][:, :2] != blocks[1][:, :2]).any(axis=1).sum())
        if not name.endswith("down.weight"):
            pairs = blocks[1][:, :2].reshape(-1, 2, 2)
            np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    assert moved > 100


@needs_torch
@pytest.mark.parametrize("format", [f for f, row in CONTAINERS.items() if "minimum" not in row.kinds])
def test_what_has_not_moved_is_stored_as_it_was(format: TensorFormat) -> None:
    import torch

    from vivace.compress.stored import StoredTensor
    from vivace.compress.torch_tuning import is_tuned, make_tuned

    spec, weights = uneven_model()
    width = 64 if format.endswith("_64") else 32
    recipe = Recipe("r", tuple(TensorRule(f"layers.*.{name}.weight", format) for name in ("attn.*", "mlp.gate")))
    made, plans = compress_weights(spec, weights, recipe).weights, plan_layout(spec, weights, recipe)
    names = [name for name, plan in plans.items() if is_tuned(plan, norms=True)]
    assert any(len(plans[name].shape) == 2 for name in names) and "final_norm.weight" in names
    for name in names:
        info, tuned = made.info(name), make_tuned(plans[name], made, "cpu")
        again = tuned.stored(StoredTensor(info.shape, info.format, made.raw(name)))
        assert again.data.tobytes() == made.raw(name).tobytes()
        np.testing.assert_array_equal(tuned.value().detach().numpy(), made.dequantize(name))
        if len(info.shape) == 2:
            assert tuned.change.shape == (info.shape[0], info.shape[1] // width, 1)
        assert torch.count_nonzero(tuned.change) == 0


@needs_torch
def test_grids_with_a_minimum_are_left_alone() -> None:
    recipe = replace(TUNED, rules=(TensorRule("layers.*", TensorFormat.Q4_1),))
    before, after = compressed(replace(recipe, tuning=None)).weights, compressed(recipe).weights
    for name in before.names():
        if before.info(name).format is TensorFormat.Q4_1:
            np.testing.assert_array_equal(before.raw(name), after.raw(name))


@needs_torch
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradient_of_segments_is_that_of_the_whole(architecture: str) -> None:
    import torch

    from vivace.compress.statistics import as_batch
    from vivace.compress.torch_gradients import Reference, SegmentedModel
    from vivace.compress.torch_walk import TorchStep, run_ops
    from vivace.execute.reference import Step
    from vivace.execute.reference_attention import KeyValuePages

    spec, weights = uneven_model(architecture)
    graph, batch = build_graph(spec), as_batch(random_windows(spec, count=3, size=20))
    arrays = {name: torch.tensor(weights.dequantize(name)) for name in weights.names()}
    for name, array in arrays.items():
        array.requires_grad_(name.startswith("layers.") or name == "final_norm.weight")
    generator = torch.Generator().manual_seed(0)
    width = arrays[graph.ops[-1].weight].shape[1]  # type: ignore[union-attr]
    aim = Reference(
        torch.randn(60, width, generator=generator), torch.randn(spec.vocab_size, width, generator=generator)
    )
    step = TorchStep(Step(batch, KeyValuePages.allocate(spec, 0), weights.dequantize), arrays.__getitem__, "cpu")
    run_ops(graph.ops, step)
    found = torch.log_softmax(step.buffers[graph.output], dim=-1)
    expected = torch.log_softmax(aim.rows @ aim.head.T, dim=-1)
    whole = (expected.exp() * (expected - found)).sum(dim=-1)
    whole.mean().backward()
    grown = {name: array.grad.clone() for name, array in arrays.items() if array.grad is not None}
    for array in arrays.values():
        array.grad = None
    learnt: list[int] = []
    total = SegmentedModel(graph, "cpu").divergence(batch, aim, arrays.__getitem__, learn=True, lap=learnt.append)
    assert total == pytest.approx(float(whole.detach().sum()), rel=1e-4)
    assert learnt == [*range(spec.num_layers + 1), *range(spec.num_layers + 1, 0, -1)]
    assert len(grown) > 8 * spec.num_layers
    for name, gradient in grown.items():
        got = arrays[name].grad
        assert got is not None
        scale = float(gradient.abs().max())
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-4 * scale)


@needs_torch
def test_the_same_run_gives_the_same_bytes() -> None:
    assert every_byte(compressed()) == every_byte(compressed())


class StoppedError(Exception):
    """A run that ends in the middle."""


@needs_torch
def test_a_stopped_tuning_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compressed(checkpoint=Checkpoint(tmp_path / "whole", "key"))
    keep: Callable[..., None] = Checkpoint.keep_beside
    kept: list[str] = []

    def keep_and_stop(self: Checkpoint, name: str, content: bytes) -> None:
        keep(self, name, content)
        kept.append(name)
        if len(kept) == 2:
            raise StoppedError

    monkeypatch.setattr(Checkpoint, "keep_beside", keep_and_stop)
    with pytest.raises(StoppedError):
        compressed(checkpoint=Checkpoint(tmp_path / "part", "key"))
    resumed = compressed(checkpoint=Checkpoint(tmp_path / "part", "key"))
    assert every_byte(resumed) == every_byte(whole)
    assert resumed.tuning == whole.tuning
    assert Checkpoint(tmp_path / "part", "another key").kept_beside(kept[0]) is None
    for damaged in (b"", b"no zip file at all", (tmp_path / "part" / kept[0]).read_bytes()[:900]):
        keep(Checkpoint(tmp_path / "part", "key"), kept[0], damaged)
        assert every_byte(compressed(checkpoint=Checkpoint(tmp_path / "part", "key"))) == every_byte(whole)


def test_without_torch_a_preset_says_what_is_missing_and_a_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    recipe, left_out = without_missing(PRESETS["int4-best"])
    assert recipe.tuning is None and "vivace[torch]" in left_out and "int4-best" in left_out
    assert without_missing(PRESETS["int4"]) == (PRESETS["int4"], "")
    with pytest.raises(ConfigError, match="needs torch") as refused:
        without_missing(TUNED)
    assert "vivace[torch]" in str(refused.value)
    assert compressed(replace(TUNED, tuning=replace(SETTINGS, optional=True))).tuning is None


def test_one_window_is_too_few_to_tune_on() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    spec, weights = uneven_model()
    with pytest.raises(ConfigError, match="too few windows"):
        compress_weights(spec, weights, TUNED, random_windows(spec, count=1))


def test_a_recipe_file_says_how_scales_are_tuned(tmp_path: Path) -> None:
    rules = "tensors:\n  - {match: 'layers.*', format: Q4_0}\n"
    (tmp_path / "r.yaml").write_text(f"tuning: {{samples: 32, epochs: 3, rate: 0.002, norms: false}}\n{rules}")
    assert find_recipe(str(tmp_path / "r.yaml")).tuning == TuningSettings(32, 3, 0.002, norms=False)
    for wrong, named in (("{rate: 2.0}", "rate of 2"), ("{steps: 3}", "'steps'"), ("{samples: 1}", "1 samples")):
        (tmp_path / "w.yaml").write_text(f"tuning: {wrong}\n{rules}")
        with pytest.raises(ConfigError, match=named):
            find_recipe(str(tmp_path / "w.yaml"))


@needs_torch
def test_tuning_is_foretold_with_the_rest(tmp_path: Path) -> None:
    source = write_uneven_gguf(tmp_path / "model.gguf")
    small = CalibrationSettings(samples=2, tokens=32)
    plain, tuned = (
        replace(PRESETS["int4"], calibration=small, tuning=how) for how in (None, TuningSettings(samples=8))
    )
    estimates = [estimate_file(source, tmp_path / "out.gguf", recipe) for recipe in (plain, tuned)]
    assert "tuning" not in estimates[0].stages and estimates[1].stages["tuning"] > 0
    assert estimates[1].tensor_bytes == estimates[0].tensor_bytes
    twice = replace(tuned, tuning=TuningSettings(samples=800))
    assert probe_seconds(source, twice) > 10 * probe_seconds(source, tuned)
    made = compress_file(source, tmp_path / "out.gguf", tuned)
    assert made.model.tuning is not None and made.model.tuning.after <= made.model.tuning.before
    assert estimates[1].tensor_bytes == made.model.weights.num_bytes()


def probe_seconds(source: Path, recipe: Recipe) -> float:
    opened = open_model(source)
    layout = plan_layout(opened.spec, opened.weights, recipe)
    seconds, extra = probe_tuning(opened.spec, opened.weights, recipe, layout, NumpyDevice())
    opened.close()
    assert extra > 4 * 2 * opened.spec.vocab_size * opened.spec.hidden_size  # both heads in float32, at least
    return seconds


def test_the_command_goes_without_torch_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    source = write_uneven_gguf(tmp_path / "model.gguf")
    small = ("--samples", "2", "--tokens", "32", "--device", "cpu", "--json")
    assert main(["compress", str(source), str(tmp_path / "out.gguf"), "--recipe", "int4-best", *small]) == 0
    printed, said = capsys.readouterr()
    assert "int4-best tunes scales end to end, which needs torch (pip install 'vivace[torch]')" in said
    assert json.loads(printed)["tuning"] is None
