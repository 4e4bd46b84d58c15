"""Node, and packages of npm in a cache outside the tree; tests skip with a reason where either is missing."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import platformdirs
import pytest

NODE, NPM = shutil.which("node"), shutil.which("npm")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed (apt install nodejs)")
DEADLINE_S = 60
INSTALL_S = 120


def run_node(script: Path, given: object, modules: Path | None = None) -> Any:
    """What a script prints, as JSON. It finds `given` in its first argument, and packages under `modules`."""
    arguments = [str(NODE), str(script), json.dumps(given), *([str(modules)] if modules else [])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def node_modules(folder: Path) -> Path:
    """The packages of a lock file, installed once a machine."""
    lock = (folder / "package-lock.json").read_bytes()
    name = hashlib.sha256(lock).hexdigest()[:16]
    place = Path(platformdirs.user_cache_dir("vivace")) / "test-node" / name
    if not (place / "installed").exists():
        if NPM is None:
            pytest.skip("npm is not installed")
        place.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(folder / file, place / file)
        command = [NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=place, capture_output=True, timeout=INSTALL_S, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"the packages of {folder.name} cannot be installed: {error}")
        (place / "installed").touch()
    return place / "node_modules"
