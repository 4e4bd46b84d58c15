"""llama.cpp's HTTP server, built for this machine from the source that llama-cpp-python ships."""

import subprocess
import sys
import tarfile
from pathlib import Path

from vivace.cli.compare.environments import PeerError, peers_folder
from vivace.files.cache_folder import make_folder

_OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_BUILD_TESTS=OFF")
_WITHOUT = ("-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_UI=OFF")
MINUTES = 15


def _folder() -> Path:
    return peers_folder() / "llama-server"


def llama_server_program() -> Path:
    """The program.

    Raises:
        PeerError: it has not been built.
    """
    program = _folder() / "build" / "bin" / "llama-server"
    if not program.exists():
        raise PeerError("not installed", "add --install")
    return program


def build_llama_server() -> None:
    """Download the source package, and build the server unless it is there; needs cmake and a C++ compiler.

    Raises:
        PeerError: a step fails; the log is kept.
        StorageError: the folder cannot be written.
    """
    folder = _folder()
    if (folder / "build" / "bin" / "llama-server").exists():
        return
    make_folder(folder)
    with (folder / "build.log").open("wb") as log:
        package = "llama-cpp-python"
        download = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", package)
        _run([*download, "--dest", str(folder), package], folder, log.fileno())
        source = _unpack(next(folder.glob("llama_cpp_python-*.tar.gz")), folder)
        _run(["cmake", "-S", str(source), "-B", "build", *_OPTIONS, *_WITHOUT], folder, log.fileno())
        _run(["cmake", "--build", "build", "--target", "llama-server", "--parallel"], folder, log.fileno())


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def _run(command: list[str], folder: Path, log: int) -> None:
    try:
        failed = subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False).returncode
    except OSError as error:
        raise PeerError(f"cannot be built: {error}", "Install cmake and a C++ compiler.") from None
    if failed:
        raise PeerError(f"cannot be built: {command[0]} failed", f"The log is {folder / 'build.log'}.")
