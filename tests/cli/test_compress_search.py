"""`smallest-within:` finds a layout that holds, and a run that was killed goes on to the very same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.models import write_uneven_gguf
from vivace.cli.main import main
from vivace.compress import save
from vivace.compress.checkpoint import Checkpoint, Progress
from vivace.compress.evaluate import Evaluation
from vivace.compress.output import only_run_into
from vivace.compress.search_progress import SearchProgress
from vivace.compress.smallest import QualityBound, parse_bound
from vivace.compress.stored import StoredTensor
from vivace.types.errors import ConfigError

TEXT = "the sand and the one that is in the hand of those on the land, or at an end of it all. " * 40
KILLED_AFTER_A_LAYER = """
import os, signal, sys
from vivace.cli.main import main
from vivace.compress.checkpoint import Checkpoint

save = Checkpoint.save

def save_and_die(self, progress):
    save(self, progress)
    if progress.segments == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
main(sys.argv[1:])
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return write_uneven_gguf(tmp_path / "model.gguf")


def asked(model: Path, out: str, recipe: str) -> list[str]:
    text = model.parent / "text.txt"
    size = ("--samples", "2", "--tokens", "48", "--device", "cpu")
    return ["compress", str(model), str(model.parent / out), "--recipe", recipe, "--calibrate-on", str(text), *size]


@pytest.mark.parametrize("recipe", ["int4", "int4-best"])
def test_a_killed_run_goes_on_and_makes_the_same_bytes(
    recipe: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(asked(model, "whole.gguf", recipe)) == 0
    child = subprocess.run([sys.executable, "-c", KILLED_AFTER_A_LAYER, *asked(model, "o.gguf", recipe)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (model.parent / "o.gguf").exists()
    assert (model.parent / ".o.gguf.resume").is_dir()
    walked = []
    keep = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, done: (walked.append(done.segments), keep(self, done))[1])
    assert main(asked(model, "o.gguf", recipe)) == 0
    capsys.readouterr()
    assert walked[0] == 3  # the two that were done are not done again
    assert (model.parent / "o.gguf").read_bytes() == (model.parent / "whole.gguf").read_bytes()
    assert not (model.parent / ".o.gguf.resume").exists()


KILLED_IN_A_TRIAL = """
import os, signal, sys
from vivace.cli.main import main
from vivace.compress.checkpoint import Checkpoint

save, tried = Checkpoint.save, set()

def save_and_die(self, progress):
    save(self, progress)
    tried.add(self._key)
    if len(tried) == int(os.environ["DIES_IN_TRIAL"]) and progress.segments == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("recipe", "trial"),
    [(("smallest-within:kl:0.02",), 2), (("mixed", "--bits-per-weight", "6", "--ms-per-token", "99"), 1)],
)
def test_a_killed_search_keeps_what_it_has_found(
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    recipe: tuple[str, ...],
    trial: int,
) -> None:
    assert main([*asked(model, "whole.gguf", recipe[0]), *recipe[1:], "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    command = [*asked(model, "o.gguf", recipe[0]), *recipe[1:], "--json"]
    child = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_TRIAL, *command],
        check=False,
        env=os.environ | {"DIES_IN_TRIAL": str(trial)},
    )
    assert child.returncode == -signal.SIGKILL
    kept = sorted(path.name for path in (model.parent / ".o.gguf.resume").glob("found *"))
    assert "found parts" in kept
    assert len([name for name in kept if name.startswith("found trial")]) == trial - 1
    assert main([*command, "--estimate"]) == 0
    assert "parts" not in json.loads(capsys.readouterr().out)["stages"]  # what is left is foretold
    monkeypatch.setattr(save, "measure_sensitivity", lambda *_, **__: pytest.fail("parts were measured again"))
    monkeypatch.setattr(save, "time_formats", lambda *_: pytest.fail("formats were timed again"))
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trials"] == whole["trials"]
    assert (model.parent / "o.gguf").read_bytes() == (model.parent / "whole.gguf").read_bytes()
    assert not (model.parent / ".o.gguf.resume").exists()


def test_what_another_search_has_found_or_what_is_damaged_is_found_anew(tmp_path: Path) -> None:
    progress = SearchProgress(Checkpoint(tmp_path / "c", "mine x"))
    figures = Evaluation(3, 2.5, 0.1, 7, kld=0.25)
    assert progress("trial 5.5", Evaluation, lambda: figures) is figures
    assert progress("trial 5.5", Evaluation, lambda: pytest.fail("it was kept")) == figures
    other = SearchProgress(Checkpoint(tmp_path / "c", "other x"))
    assert other("trial 5.5", Evaluation, lambda: Evaluation(1, 1.0, 0.0, 1)).num_tokens == 1
    (tmp_path / "c" / "found trial 5.5").write_bytes(b"mine x\n{half")
    assert progress("trial 5.5", Evaluation, lambda: figures) is figures


def test_a_second_run_into_the_same_file_gets_one_clear_line_and_touches_nothing(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = model.parent / "o.gguf"
    with only_run_into(out):
        before = sorted(model.parent.rglob("*"))
        assert main(asked(model, "o.gguf", "int4")) == 2
        said = capsys.readouterr().err
        assert (said.count("\n"), f"Another run is making {out}" in said) == (1, True)
        assert sorted(model.parent.rglob("*")) == before
        assert main(asked(model, "other.gguf", "int4-fast")) == 0
    assert not (model.parent / ".o.gguf.resume").exists()
    assert main(asked(model, "o.gguf", "int4-fast")) == 0
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.gguf", "o.gguf", "other.gguf", "text.txt"]


def test_a_moved_model_goes_on_and_a_changed_one_begins_anew(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_A_LAYER, *asked(model, "o.gguf", "int4-gptq")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    shutil.copytree(model.parent / ".o.gguf.resume", model.parent / "kept")
    walked = []
    keep = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, done: (walked.append(done.segments), keep(self, done))[1])
    moved = model.with_name("moved.gguf")
    moved.write_bytes(model.read_bytes())
    os.utime(moved, (1, 1))
    assert main(asked(moved, "o.gguf", "int4-gptq")) == 0
    assert walked[0] == 3
    walked.clear()
    content = bytearray(model.read_bytes())
    content[-200] ^= 1  # a bit of the last tensor; length and time stay
    times = model.stat()
    model.write_bytes(content)
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    (model.parent / "kept").rename(model.parent / ".o.gguf.resume")
    assert main([*asked(model, "o.gguf", "int4-gptq"), "--force"]) == 0
    assert walked[0] == 1
    capsys.readouterr()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_none(tmp_path: Path) -> None:
    import numpy as np

    from vivace.types.weights import TensorFormat

    tensor = StoredTensor((4,), TensorFormat.F32, np.arange(16, dtype=np.uint8))
    progress = Progress(1, {"a": tensor}, {"a": 0.5}, [{"x": np.ones((2, 3), np.float32)}])
    Checkpoint(tmp_path / "c", "mine").save(progress)
    found = Checkpoint(tmp_path / "c", "mine").load()
    assert found is not None
    assert (found.segments, found.errors) == (1, {"a": 0.5})
    np.testing.assert_array_equal(found.stored["a"].data, tensor.data)
    np.testing.assert_array_equal(found.buffers[0]["x"], 1)
    assert Checkpoint(tmp_path / "c", "other").load() is None
    (tmp_path / "c" / "tensors1.npz").write_bytes(b"PK\x03\x04 half")
    assert Checkpoint(tmp_path / "c", "mine").load() is None
    assert Checkpoint(tmp_path / "none", "mine").load() is None


def test_the_smallest_layout_that_holds_is_found_and_measured(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {}
    for limit in (0.015, 0.1):
        out = f"o{limit}.gguf"
        status = main([*asked(model, out, f"smallest-within:kl:{limit}"), "--json"])
        printed, err = capsys.readouterr()
        assert status == 0, err
        trials = json.loads(printed)["trials"]
        holding = [trial["bits_per_weight"] for trial in trials if trial["holds"]]
        missing = [trial["bits_per_weight"] for trial in trials if not trial["holds"]]
        assert all(trial["holds"] == (trial["measured"] <= limit) for trial in trials)
        assert min(holding) > max(missing, default=0)
        sizes[limit] = (model.parent / out).stat().st_size
    assert sizes[0.1] < sizes[0.015]


def test_names_of_qualities_are_read_and_refused() -> None:
    assert parse_bound("smallest-within:ppl+1%") == QualityBound("ppl", 1.01)
    assert parse_bound("smallest-within:kl:0.02") == QualityBound("kl", 0.02)
    assert parse_bound("int4") is None
    for wrong in ("smallest-within:", "smallest-within:ppl+x%", "smallest-within:kl:0", "smallest-within:kl:1.2.3"):
        with pytest.raises(ConfigError, match="names no quality"):
            parse_bound(wrong)


def test_a_quality_out_of_reach_is_said_and_leaves_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in model.parent.iterdir())
    status = main(asked(model, "o.gguf", "smallest-within:kl:0.00000000001"))
    assert status == 2
    assert "Not even" in capsys.readouterr().err
    assert sorted(path.name for path in model.parent.iterdir()) == before
