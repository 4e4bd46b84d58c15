"""The hygiene gate catches planted machine paths, registry hosts and credentials."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GATE = REPOSITORY / "tools" / "check_hygiene.py"


def run_gate(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(GATE), str(root)], capture_output=True, text=True, check=False)


PLANTED = {
    "machine path": "see /work/main/notes",
    "home path": "cache = '/home/alice/.cache'",
    "scratch path": 'open("/tmp/models/a.gguf")',
    "registry host": "https://files.pythonhosted.org/packages/a.whl",
    "pip index option": "pip install --extra-index-url file:///somewhere x",
    "credential": "token = 'hf_" + "a" * 34 + "'",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_gate_catches(kind: str, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text(f"first line\n{PLANTED[kind]}\n", encoding="utf-8")
    result = run_gate(tmp_path)
    assert result.returncode == 1
    assert f"notes.md:2: {kind}" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "a network/work/load",
        "https://example.org/tmp/x",
        "~/work/vivace",
        "POST /v1/chat/completions",
        "/home/you/models",
    ],
)
def test_gate_passes(text: str, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text(text, encoding="utf-8")
    result = run_gate(tmp_path)
    assert result.returncode == 0, result.stdout


def test_gate_passes_this_repository() -> None:
    result = run_gate(REPOSITORY)
    assert result.returncode == 0, result.stdout
