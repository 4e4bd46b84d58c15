"""Asks the user's pip: which package index it uses, and for wheels where our own way to that index is closed.

pip knows its configuration files, extra indexes, credentials and certificates; none of that is repeated here.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from vivace.types.errors import CatalogueError

_INDEX = re.compile(r"Python Package Index \(default\s+(https?://[^\s)]+)\)")
_HELP_WIDTH = "1000"  # columns: keeps pip from breaking the line that names the index


def index_url() -> str | None:
    """Base URL of the index pip is configured for, as its help tells it.

    Returns:
        None when pip is missing, or when the index needs credentials (pip hides them) or is no web address.
    """
    try:
        answer = _run("download", "--help")
    except CatalogueError:
        return None
    match = _INDEX.search(answer.stdout)
    return match[1] if match and "****" not in match[1] else None


def download_wheel(project: str, version: str, folder: Path) -> None:
    """Let pip put one wheel into `folder`, without its dependencies and without installing or building anything.

    Raises:
        CatalogueError: pip is missing, or cannot get it; the message ends with pip's last word.
    """
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "1", "--quiet"]
    answer = _run("download", *options, "--dest", str(folder), f"{project}=={version}")
    if answer.returncode == 0:
        return
    lines = answer.stderr.strip().splitlines() or ["pip failed"]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines)[-1].rstrip(".")
    raise CatalogueError(
        f"{project} {version} cannot be downloaded: {reason}.",
        "Check the network and pip's settings, or give the path of a model file you have.",
    )


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": _HELP_WIDTH, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CatalogueError(f"pip cannot be started: {error}.", "Install pip in this environment.") from error
