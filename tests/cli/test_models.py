"""`vivace models`, as a person and as a script sees it."""

import argparse
import json
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli import models
from vivace.files.catalogue_rows import ROWS
from vivace.types.errors import CatalogueError, ConfigError
from vivace.types.weights import TensorFormat


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    return models.run(parser.parse_args(words))


def _pretend_pulled(cache: Path) -> Path:
    row = ROWS["smollm2-135m"]
    path = row.path_in(cache)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(row.num_bytes)
    return path


def test_show_as_json_has_path_and_hash(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("show", "smollm2-135m", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["path"] is None and card["sha256"] == ROWS["smollm2-135m"].sha256
    path = _pretend_pulled(cache)
    _run("show", "smollm2-135m", "--json")
    card = json.loads(capsys.readouterr().out)
    assert card["path"] == str(path)
    assert set(card) == {
        "name", "summary", "path", "num_bytes", "sha256", "licence", "source", "chat_template", "default",
    }  # fmt: skip


def test_list_tells_what_is_pulled(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _pretend_pulled(cache)
    assert _run("list") == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "SIZE", "LICENCE", "PULLED", "WHAT", "IT", "IS"]
    assert first.startswith("smollm2-135m (default)  98 MB") and " yes " in first
    assert second.startswith("gemma3-270m") and " no " in second
    _run("list", "--json")
    assert [card["name"] for card in json.loads(capsys.readouterr().out)] == list(ROWS)


def test_show_describes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    assert _run("show", str(tmp_path / "tiny.gguf")) == 0
    shown = capsys.readouterr().out
    assert "llama, 3 layers of 64" in shown and str(tmp_path / "tiny.gguf") in shown


def test_show_tells_what_ops_read_by_the_table_of_casts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "m.gguf", small_spec(), format=TensorFormat.Q8_0)
    assert _run("show", str(tmp_path / "m.gguf"), "--precision", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    reads = {row["op"]: row["reads"] for row in shown["ops"]}
    assert reads["matrix product"] == "int12" and reads["norm"] == reads["attention"] == "f32"
    assert _run("show", str(tmp_path / "m.gguf"), "--precision", "--policy", "amp") == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split()[3:6] for line in lines if line.startswith("matrix")) == ["allow", "bf16", "Q8_0"]
    with pytest.raises(ConfigError, match="native-12"):
        _run("show", str(tmp_path / "m.gguf"), "--precision", "--policy", "fast")


def test_pull_prints_the_path(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _pretend_pulled(cache)
    assert _run("pull", "smollm2-135m") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert _run("pull", "smollm2-135m", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "smollm2-135m", "path": str(path)}


def test_rm_says_what_it_freed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _pretend_pulled(cache)
    assert _run("rm", "smollm2-135m") == 0
    assert capsys.readouterr().out == "98 MB freed\n"
    assert _run("rm", "smollm2-135m") == 0
    assert capsys.readouterr().out == "smollm2-135m was not pulled\n"
    assert _run("rm", "smollm2-135m", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "smollm2-135m", "freed_bytes": 0}


def test_unknown_names_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("show", "pull", "rm"):
        with pytest.raises(CatalogueError, match="no model 'nothing'"):
            _run(action, "nothing")
    assert capsys.readouterr().out == ""
