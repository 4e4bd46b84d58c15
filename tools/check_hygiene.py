"""The hygiene gate: no machine paths, registry hosts or credentials in tracked text files.

A clone must work on any machine and with any package index, so nothing in the tree may name the ones it was written on.
A place that must name one is a row in ALLOWED with its reason.

    python tools/check_hygiene.py [ROOT]    # exit status 1 when something is found
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT_OF_PATH = r"(?<![\w.:/~-])"
REGISTRIES = "pythonhosted|pypi|npmjs|registry|artifactory|nexus"
DOMAINS = "org|com|net|io|dev|cn|internal|local|corp"
FORBIDDEN = {
    "machine path": re.compile(ROOT_OF_PATH + r"/(?:work|root|opt|mnt|workspace|Users)/\w"),
    "home path": re.compile(ROOT_OF_PATH + r"/home/(?!user\b|you\b)\w"),
    "scratch path": re.compile(ROOT_OF_PATH + r"/tmp/\w"),
    "registry host": re.compile(rf"\b(?:[\w-]+\.)*(?:{REGISTRIES})(?:\.[\w-]+)*\.(?:{DOMAINS})\b", re.I),
    "pip index option": re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host|PIP_(?:EXTRA_)?INDEX_URL"),
    "credential": re.compile(r"\b(?:hf_|sk-|ghp_)[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY"),
}
# (kind, path) -> why it may stand there
ALLOWED = {
    **{(kind, "tools/check_hygiene.py"): "the patterns themselves" for kind in FORBIDDEN},
    **{(kind, "tests/house/test_hygiene.py"): "planted violations" for kind in FORBIDDEN},
}
BINARY_SUFFIXES = frozenset({".png", ".jpg", ".gif", ".ico", ".woff2", ".npz", ".npy", ".gguf", ".safetensors", ".gz"})


def tracked_files(root: Path) -> list[Path]:
    """Files that git tracks under `root`, relative to it; all files when it is no git work tree."""
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False)
    if listing.returncode != 0:
        return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [Path(name) for name in listing.stdout.decode().split("\0") if name]


def findings(root: Path) -> Iterator[str]:
    """Yield one line for each forbidden text in the tree."""
    for path in tracked_files(root):
        if path.suffix not in BINARY_SUFFIXES and (root / path).is_file():
            yield from _findings_in_file(root, path)


def _findings_in_file(root: Path, path: Path) -> Iterator[str]:
    lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
    patterns = {kind: pattern for kind, pattern in FORBIDDEN.items() if (kind, path.as_posix()) not in ALLOWED}
    for number, line in enumerate(lines, start=1):
        for kind, pattern in patterns.items():
            match = pattern.search(line)
            if match:
                yield f"{path}:{number}: {kind}: {match.group()!r}"


def main(arguments: list[str]) -> int:
    """Check the tree named on the command line (default: the current folder)."""
    root = Path(arguments[0]) if arguments else Path.cwd()
    found = list(findings(root))
    print("\n".join(found) or "hygiene: no machine paths, registry hosts or credentials")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
