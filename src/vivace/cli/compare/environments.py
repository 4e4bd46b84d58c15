"""A virtual environment for each peer, below the cache folder, and what to say when there is none."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vivace.cli.compare.peers import Peer
from vivace.files.cache_folder import cache_folder, make_folder
from vivace.types.errors import VivaceError

_DONE = "installed.txt"  # written last: an environment without it was cut off


_LIST_REQUIREMENTS = """
import sys
from importlib.metadata import requires
from pathlib import Path
from packaging.requirements import Requirement

package, file, *unwanted = sys.argv[1:]
found = [Requirement(line) for line in requires(package) or []]
kept = [r for r in found if r.name.lower() not in unwanted and (r.marker is None or r.marker.evaluate({"extra": ""}))]
for requirement in kept:
    requirement.marker = None
Path(file).write_text("\\n".join(map(str, kept)))
"""
"""What a package needs, less what is unwanted, as a file for pip; run by the environment's own Python."""


class PeerError(VivaceError):
    """A peer that cannot be installed, started or measured; the comparison goes on without it."""

    code = "peer_failed"


def peers_folder() -> Path:
    """Where environments, converted models and logs of peers live; it need not exist yet."""
    return cache_folder() / "peers"


def python_of(peer: Peer) -> Path:
    """The Python that runs a peer.

    Raises:
        PeerError: the peer is not installed.
    """
    if not peer.packages:
        return Path(sys.executable)
    folder = peers_folder() / peer.name
    if not (folder / _DONE).exists():
        raise PeerError("not installed", "add --install")
    return _python_in(folder)


def install(peer: Peer) -> None:
    """Make the environment of a peer, unless it is there.

    Raises:
        PeerError: pip fails; the log is kept.
        StorageError: the folder cannot be written.
    """
    folder = peers_folder() / peer.name
    if not peer.packages or (folder / _DONE).exists():
        return
    make_folder(peers_folder())
    log = peers_folder() / f"{peer.name}-install.log"
    variables = {**os.environ, **peer.variables}
    python = str(_python_in(folder))
    commands = [[sys.executable, "-m", "venv", "--clear", str(folder)]]
    pip = [python, "-m", "pip", "install", "--upgrade"]
    commands += [[*pip, "numpy", *group] for group in peer.packages]
    if peer.bare is not None:
        wanted = folder / "requirements.txt"
        listing = [python, "-c", _LIST_REQUIREMENTS, peer.bare, str(wanted), *peer.unwanted]
        commands += [[*pip, "--no-deps", peer.bare], listing, [*pip, "-r", str(wanted)]]
    with log.open("wb") as output:
        for command in commands:
            if subprocess.run(command, env=variables, stdout=output, stderr=output, check=False).returncode:
                raise PeerError(f"cannot be installed: {_last_error(log)}", f"The log is {log}.")
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, check=False)
    (folder / _DONE).write_bytes(listed.stdout)


def child_program(child: str) -> str:
    """What a peer's Python runs (with -c) to be a module of `children`.

    Our folder is on its path only while our own modules are found: a peer must not take them for its own.
    """
    folder = str(Path(__file__).parent)
    return (
        f"import sys, importlib; sys.path.insert(0, {folder!r}); import children.protocol; "
        f"child = importlib.import_module('children.{child}'); sys.path.remove({folder!r}); child.main()"
    )


def run_child(python: Path, child: str, arguments: Sequence[str], log: Path) -> None:
    """Run a module of `children` to its end.

    Raises:
        PeerError: it fails; the log is kept.
    """
    command = [str(python), "-c", child_program(child), *arguments]
    with log.open("wb") as output:
        if subprocess.run(command, stdout=output, stderr=output, check=False).returncode:
            raise PeerError(f"{child} failed: {_last_error(log)}", f"The log is {log}.")


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _last_error(log: Path) -> str:
    """pip's own word on what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR: ").rstrip(".")[:200]
