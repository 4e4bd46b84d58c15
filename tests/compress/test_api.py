"""Compression in Python: the same files as on the command line, told before, and mistakes that are named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.models import write_uneven_gguf
from vivace.cli.main import main
from vivace.compress import api, compress, foretell
from vivace.compress.recipe import PRESETS, CalibrationSettings
from vivace.types.errors import ConfigError

TEXT = "the sand and the one that is in the hand of those on the land, or at an end of it all. " * 300
SMALL = CalibrationSettings(samples=2, tokens=48)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return write_uneven_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["int4-awq", "int4-fast"])
def test_python_makes_the_bytes_that_the_command_makes(model: Path, name: str) -> None:
    text, own = model.parent / "text.txt", model.parent / "own.gguf"
    command = ["compress", str(model), str(model.parent / "o.gguf"), "--recipe", name, "--device", "cpu"]
    assert main([*command, "--calibrate-on", str(text), "--samples", "2", "--tokens", "48"]) == 0
    recipe = replace(PRESETS[name], calibration=SMALL)
    told = foretell(model, own, recipe, calibrate_on=[text], device="cpu")
    steps: list[str] = []

    def report(_done: int, _total: int, what: str) -> None:
        steps.append(what)

    made = compress(str(model), str(own), recipe, calibrate_on=[str(text)], device="cpu", report=report)
    assert own.read_bytes() == (model.parent / "o.gguf").read_bytes()
    assert told.file_bytes == made.verification.file_bytes == own.stat().st_size
    assert steps


def test_searches_and_presets_are_taken(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, out = model.parent / "text.txt", model.parent / "o.gguf"
    monkeypatch.setattr(api, "find_recipe", lambda name: replace(PRESETS[name], calibration=SMALL))
    mixed = compress(model, out, "mixed", bits_per_weight=6, calibrate_on=[text], device="cpu")
    assert mixed.sensitivities
    search = foretell(model, model.parent / "s.gguf", "smallest-within:kl:0.5", calibrate_on=[text], device="cpu")
    assert search.more_s > 0
    with pytest.raises(ConfigError, match="exists already"):
        compress(model, out, "int8", device="cpu")
    assert compress(model, out, "int8", device="cpu", overwrite=True).path == out


@pytest.mark.parametrize(
    ("recipe", "others", "words"),
    [
        ("mixed", {}, "belong together"),
        ("int8", {"bits_per_weight": 5.5}, "belong together"),
        ("mixed", {"bits_per_weight": 0}, "0 bits a weight"),
        ("int9", {}, "no recipe"),
        ("int8", {"device": "abacus"}, "abacus"),
        ("int4", {"calibrate_on": ["none.txt"]}, "does not exist"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(model: Path, recipe: str, others: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compress(model, model.parent / "o.gguf", recipe, **({"device": "cpu"} | others))
    assert not [path for path in model.parent.iterdir() if path.name.startswith((".o", "o."))]
