"""Install a dependency group of pyproject.toml with whatever pip the environment has.

`pip install --group` needs pip 25.1; the pip that comes with a distribution's Python is often older.

    .venv/bin/python tools/install_group.py build
"""

import subprocess
import sys
import tomllib
from pathlib import Path


def group_requirements(pyproject: Path, name: str) -> list[str]:
    """Requirements of group `name` with the groups it includes (PEP 735); KeyError when there is no such group."""
    groups = tomllib.loads(pyproject.read_text(encoding="utf-8"))["dependency-groups"]
    requirements: list[str] = []
    for entry in groups[name]:
        if isinstance(entry, str):
            requirements.append(entry)
        else:
            requirements.extend(group_requirements(pyproject, entry["include-group"]))
    return requirements


def main(arguments: list[str]) -> int:
    """Install the group named on the command line into the running interpreter's environment."""
    requirements = group_requirements(Path(__file__).parents[1] / "pyproject.toml", arguments[0])
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
