"""Importing vivace is light: front-end libraries load when they are used, torch never."""

import json
import subprocess
import sys

import pytest

HEAVY = frozenset({"torch", "transformers", "tensorflow", "jax"})
FRONT_END = frozenset({"starlette", "uvicorn", "rich", "prompt_toolkit", "huggingface_hub"})


def modules_after(statement: str) -> set[str]:
    """Top-level names in sys.modules of a new interpreter that ran `statement`."""
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_import_vivace_loads_no_front_end_library() -> None:
    assert modules_after("import vivace") & (HEAVY | FRONT_END) == set()


@pytest.mark.parametrize("module", ["vivace.cli.main", "vivace.engine", "vivace.server", "vivace.execute"])
def test_no_serving_room_loads_torch(module: str) -> None:
    assert modules_after(f"import {module}") & HEAVY == set()


def test_the_command_starts_without_the_server_libraries() -> None:
    assert modules_after("import vivace.cli.main") & {"starlette", "uvicorn", "huggingface_hub"} == set()
