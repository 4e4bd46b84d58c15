"""Build the wheel, install it into an empty environment, and see that it runs there without torch.

`pip install .` must work for a stranger: this does the same, but compiles in the developer's build folder, so that
nothing is compiled twice.

    .venv/bin/python tools/check_wheel.py
"""

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BUILD_FOLDER = REPOSITORY / "build" / "dev"
REQUIRED_SUFFIXES = ("vivace/py.typed", "vivace/__init__.py", "licenses/LICENSE", "entry_points.txt")
UNWANTED_PARTS = frozenset({"tests", "node_modules", "__pycache__"})
PROBE = """
import sys
import vivace._native
from vivace import LLM
assert "torch" not in sys.modules, "importing vivace loaded torch"
assert "site-packages" in vivace.__file__, vivace.__file__
"""


def build_wheel(target: Path) -> Path:
    """Build the wheel into folder `target` and return its path."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(target), f"--config-settings=build-dir={BUILD_FOLDER}", str(REPOSITORY)], check=True)
    (wheel,) = target.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Raise AssertionError when the wheel lacks a file or carries one that is no part of the package."""
    names = zipfile.ZipFile(wheel).namelist()
    for suffix in REQUIRED_SUFFIXES:
        assert any(name.endswith(suffix) for name in names), f"the wheel lacks {suffix}"
    assert any(Path(name).name.startswith("_native.") for name in names), "the wheel lacks the compiled core"
    for name in names:
        assert not UNWANTED_PARTS.intersection(Path(name).parts), f"the wheel carries {name}"


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel with its dependencies into a new environment in `folder`, and run it from elsewhere."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    subprocess.run([str(python), "-c", PROBE], check=True, cwd=folder)
    subprocess.run(
        [str(folder / "venv" / "bin" / "vivace"), "--help"], check=True, cwd=folder, stdout=subprocess.DEVNULL
    )
    installed = subprocess.run([str(python), "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "torch" not in installed.split(), "the wheel pulls torch"


def main() -> None:
    """Check the wheel of this repository and print how long each half took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        wheel = build_wheel(folder)
        print(f"wheel: {wheel.stat().st_size / 1e6:.1f} MB built in {time.perf_counter() - started:.1f} s")
        check_contents(wheel)
        started = time.perf_counter()
        check_installed(wheel, folder)
        print(f"wheel: installed and run in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
