"""Set-up says plainly what a machine lacks, and reads its requirements from pyproject.toml alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CHECK = REPOSITORY / "tools" / "check_machine.sh"


def check_machine(**environment: str) -> subprocess.CompletedProcess[str]:
    values = os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run([str(CHECK)], env=values, capture_output=True, text=True, check=False)


def test_a_machine_without_a_new_enough_python_is_told_so() -> None:
    result = check_machine(PYTHON="python-of-yesterday")
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert result.stdout == ""


def test_a_machine_without_a_compiler_is_told_what_to_install() -> None:
    result = check_machine(CXX="no-such-compiler")
    assert result.returncode == 1
    assert "no C++20 compiler works" in result.stderr
    assert "sudo apt install" in result.stderr


def test_a_compiler_that_is_too_old_counts_as_none(tmp_path: Path) -> None:
    compiler = tmp_path / "old-compiler"
    compiler.write_text("#!/bin/sh\necho 'unrecognized option -std=c++20' >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    assert check_machine(CXX=str(compiler)).returncode == 1


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    result = check_machine(PYTHON=str(python))
    assert result.returncode == 1
    assert "python3-venv" in result.stderr


def test_groups_include_other_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    from install_group import group_requirements

    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[dependency-groups]\na = ["x>=1"]\nb = [{ include-group = "a" }, "y"]\n', encoding="utf-8")
    assert group_requirements(pyproject, "b") == ["x>=1", "y"]
