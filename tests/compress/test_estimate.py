"""What a compression takes, foretold: the arithmetic, the probe on a small model, and what is left after a stop."""

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.models import random_windows, write_uneven_gguf
from factories.hf_folders import hf_spec, write_hf_folder
from vivace.compress.checkpoint import Checkpoint, fingerprint, run_key
from vivace.compress.estimate import End, Pace, Work, duration, estimate_file, foretell
from vivace.compress.layout import plan_layout
from vivace.compress.output import only_run_into, workplace_of
from vivace.compress.pipeline import compress_weights
from vivace.compress.probe import LayerPace, PipelinePace, layer_kinds, probe_disk
from vivace.compress.recipe import PRESETS, CalibrationSettings
from vivace.compress.save import compress_file
from vivace.files.open import open_model
from vivace.types.errors import StorageError

KIND, OTHER = ("a",), ("b",)
PIPELINE = PipelinePace(
    layers={KIND: LayerPace(token_s=0.5, fixed_s=3.0, extra_bytes=700)},
    weight_s={"embed.weight": 0.25},
    weight_bytes={"embed.weight": 2.0},
    token_s=0.125,
)
PACE = Pace(PIPELINE, 5.0, 2.0, 0.001, 0.002, now_bytes=1000, executor_bytes=300, seen_bytes=10)
WORK = Work((KIND,) * 4, {"embed.weight": End(16, 0.0)}, 2, 8, 50, 40, out_bytes=100, source_bytes=200)
SMALL = CalibrationSettings(samples=2, tokens=32, seed=1)


def test_every_stage_scales_with_what_there_is_of_it() -> None:
    once = foretell(PACE, WORK)
    assert once.stages == pytest.approx(
        {"text": 5, "walk": 8 * (0.125 + 4 * 0.5), "rounding": 16 * 0.25 + 4 * 3, "writing": 0.4, "check": 2.4}
    )
    longer = foretell(PACE, replace(WORK, tokens=16))
    assert longer.stages["walk"] == 2 * once.stages["walk"]
    assert longer.stages["rounding"] == once.stages["rounding"]
    deeper = foretell(PACE, replace(WORK, layers=(KIND,) * 8))
    assert deeper.seconds - once.seconds == pytest.approx(4 * (3 + 8 * 0.5) + 4 * 0.05)
    assert once.seconds == pytest.approx(sum(once.stages.values()))


def test_a_run_that_the_disk_could_not_hold_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WORK.disk_bytes == 2 * 100 + 50
    assert replace(WORK, tokens=0).disk_bytes == 100
    source = tmp_path / "model.gguf"
    write_uneven_gguf(source)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="room for 0 MB"):
        estimate_file(source, tmp_path / "out.gguf", PRESETS["int4-fast"])
    assert list(tmp_path.iterdir()) == [source]


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="Read-only"):
        patched.setattr("tempfile.TemporaryFile", refuse)
        probe_disk(tmp_path)
    (tmp_path / ".out.gguf.resume").write_text("a file where the workplace should be")
    with pytest.raises(StorageError, match="cannot be used"), only_run_into(tmp_path / "out.gguf"):
        pass


def test_a_kind_of_layer_that_was_not_probed_costs_as_the_others_do() -> None:
    assert foretell(PACE, replace(WORK, layers=(KIND, OTHER))) == foretell(PACE, replace(WORK, layers=(KIND, KIND)))


def test_peak_memory_is_that_of_the_stage_that_holds_most() -> None:
    assert foretell(PACE, WORK).peak_bytes == 1000 + 200 + 100 + 50 + 40 + 700  # a layer
    wide = replace(WORK, ends={"embed.weight": End(10_000, 0.0)})
    assert foretell(PACE, wide).peak_bytes == 1000 + 20_000  # the embedding, with nothing else made yet
    heavy = replace(PACE, executor_bytes=50_000)
    assert foretell(heavy, WORK).peak_bytes == 1000 + 200 + 2 * 100 + 50_000  # the check
    assert foretell(replace(PACE, seen_bytes=10**6), WORK).peak_bytes == 10**6  # before the run


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.1, "1 s"), (59.4, "59 s"), (130, "2 min 10 s"), (11_100, "3 h 5 min")]
)
def test_durations_are_told_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize("name", ["int8", "chapter", "int4", "int4-awq", "w8a8"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_foretold_bytes_are_those_of_the_file_and_nothing_is_written(
    tmp_path: Path, name: str, architecture: str
) -> None:
    source = write_uneven_gguf(tmp_path / "model.gguf", architecture)
    recipe = replace(PRESETS[name], calibration=SMALL)
    estimate = estimate_file(source, tmp_path / "out.gguf", recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert (estimate.stages["walk"] > 0) == recipe.needs_calibration
    assert min(estimate.stages[stage] for stage in ("text", "rounding", "writing", "check")) > 0
    assert estimate.peak_bytes > 0
    made = compress_file(source, tmp_path / "out.gguf", recipe)
    written = open_model(made.path)
    assert estimate.tensor_bytes == sum(written.weights.info(name).num_bytes for name in written.weights.names())
    written.close()
    assert estimate.file_bytes == made.path.stat().st_size
    assert f"in a file of {made.path.stat().st_size:,} bytes" in estimate.sentence()


def test_a_rotated_model_is_estimated_with_the_head_that_it_gets(tmp_path: Path) -> None:
    source = write_uneven_gguf(tmp_path / "model.gguf")
    recipe = replace(PRESETS["int4"], folds=("hadamard", "awq"), calibration=SMALL)
    estimate = estimate_file(source, tmp_path / "out.gguf", recipe)
    made = compress_file(source, tmp_path / "out.gguf", recipe)
    assert (estimate.tensor_bytes, estimate.file_bytes) == (made.model.weights.num_bytes(), made.path.stat().st_size)


def test_a_file_made_of_a_folder_is_foretold_with_its_tokenizer_and_a_folder_is_not(tmp_path: Path) -> None:
    write_hf_folder(tmp_path / "folder", hf_spec(num_layers=2))
    estimate = estimate_file(tmp_path / "folder", tmp_path / "out.gguf", PRESETS["w8a8"])
    made = compress_file(tmp_path / "folder", tmp_path / "out.gguf", PRESETS["w8a8"])
    assert estimate.file_bytes == made.path.stat().st_size
    assert estimate_file(tmp_path / "folder", tmp_path / "out", PRESETS["int8"]).file_bytes is None


def test_layers_of_one_format_are_one_kind(tmp_path: Path) -> None:
    source = open_model(write_uneven_gguf(tmp_path / "model.gguf"))
    count = source.spec.num_layers
    assert len(set(layer_kinds(plan_layout(source.spec, source.weights, PRESETS["int8"]), count))) == 1
    assert len(set(layer_kinds(plan_layout(source.spec, source.weights, PRESETS["chapter"]), count))) == 2
    source.close()


def test_a_run_that_was_stopped_is_estimated_by_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.gguf"
    source = open_model(write_uneven_gguf(tmp_path / "model.gguf"))
    recipe = replace(PRESETS["int4"], calibration=SMALL)
    works: list[Work] = []

    def kept(pace: Pace, work: Work) -> object:
        works.append(work)
        return foretell(pace, work)

    monkeypatch.setattr("vivace.compress.estimate.foretell", kept)
    estimate_file(source.path, out, recipe)
    samples = random_windows(source.spec, count=2, size=32)
    key = run_key(fingerprint(source.spec, source.weights), recipe, samples, "numpy")

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:  # the embedding and a layer
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_weights(
            source.spec, source.weights, recipe, samples, stop, checkpoint=Checkpoint(workplace_of(out), key)
        )
    estimate_file(source.path, out, recipe)
    estimate_file(source.path, out, replace(recipe, scales="minmax"))  # another job: nothing of it is done
    whole, left, other = works
    assert len(left.layers) == len(whole.layers) - 1
    assert "embed.weight" in whole.ends
    assert "embed.weight" not in left.ends
    assert other.layers == whole.layers
    source.close()
