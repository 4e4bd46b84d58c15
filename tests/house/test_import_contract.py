"""The import contract fails on planted imports that climb a floor, cross one, or bring torch into serving."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command(['--no-cache']))"


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the tree at `root`; -S keeps out the installed vivace, which would be read instead."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), sysconfig.get_path("purelib")])}
    command = [sys.executable, "-S", "-c", LINT]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    source = REPOSITORY / "src" / "vivace"
    shutil.copytree(source, tmp_path / "src" / "vivace", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


def test_the_tree_keeps_the_contract(copied_tree: Path) -> None:
    result = lint_imports(copied_tree)
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {
    "a climb from graph to engine": ("graph/planted.py", "import vivace.engine"),
    "a climb from types to numerics": ("types/planted.py", "import vivace.numerics"),
    "strangers on one floor": ("files/planted.py", "import vivace.text"),
    "strangers on floor six": ("sample/planted.py", "import vivace.execute"),
    "an import hidden in a function": ("graph/planted.py", "def late():\n    import vivace.server"),
    "the core outside its executor": ("graph/planted.py", "from vivace import _native"),
    "torch in the engine": ("engine/planted.py", "import torch"),
    "torch hidden in a numpy executor": ("execute/planted.py", "def late():\n    import torch.nn"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_contract_catches(name: str, copied_tree: Path) -> None:
    path, text = PLANTED[name]
    (copied_tree / "src" / "vivace" / path).write_text(text + "\n", encoding="utf-8")
    result = lint_imports(copied_tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "planted" in result.stdout


def test_contract_catches_a_room_without_a_floor(copied_tree: Path) -> None:
    room = copied_tree / "src" / "vivace" / "attic"
    room.mkdir()
    (room / "__init__.py").touch()
    assert lint_imports(copied_tree).returncode != 0


def test_torch_is_allowed_in_its_executor(copied_tree: Path) -> None:
    room = copied_tree / "src" / "vivace" / "execute" / "torch"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "run.py").write_text("import torch\n", encoding="utf-8")
    result = lint_imports(copied_tree)
    assert result.returncode == 0, result.stdout + result.stderr
