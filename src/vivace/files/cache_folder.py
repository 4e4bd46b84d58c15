"""Where pulled models live, and what goes wrong with disks, said in one sentence."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vivace.types.errors import StorageError

CACHE_VARIABLE = "VIVACE_CACHE"
ELSEWHERE = f"Choose another folder with the environment variable {CACHE_VARIABLE}."

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a file is in the way of a folder",
    errno.EEXIST: "a file is in the way of a folder",
}


def cache_folder() -> Path:
    """The folder VIVACE_CACHE names, else the user's cache folder; it need not exist yet."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path  # not needed where the variable is set

    return user_cache_path("vivace", appauthor=False)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about `folder` into a StorageError.

    Raises:
        StorageError: the disk is full, or the folder cannot be made or written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"The disk of {folder} is full.", f"Free some space. {ELSEWHERE}") from error
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{folder} cannot be written: {reason}.", f"Mend its permissions. {ELSEWHERE}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        StorageError: it cannot be made or written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")


def require_space(folder: Path, num_bytes: int) -> None:
    """Check before a download that there is room for it.

    Raises:
        StorageError: there is not.
    """
    with storage_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StorageError(
            f"{num_bytes / 1e6:.0f} MB are needed in {folder}, and {free / 1e6:.0f} MB are free.",
            f"Free some space. {ELSEWHERE}",
        )


def move_into_place(temporary: Path, target: Path) -> None:
    """Make a finished file appear under its name at once and for good: flush it, rename it, flush the folder."""
    with storage_errors(target.parent):
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        if os.name == "posix":
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
