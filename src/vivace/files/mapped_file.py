"""A file mapped into memory for reading: nothing is copied, pages come in as they are touched.

A file that another program shortens while it is mapped makes the process fault; model files are replaced by renaming,
never rewritten in place.
"""

import mmap
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ModelFileError


class MappedFile:
    """A read-only view of a whole file.

    Args:
        path: the file.

    Raises:
        ModelFileError: the file is missing, empty, no regular file, or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ModelFileError(f"{path} does not exist.", "Check the path.") from None
        except ValueError:
            raise ModelFileError(f"{path} is empty.", "Get the file again.") from None
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise ModelFileError(f"{path} cannot be read: {reason}.", "Check the path and its permissions.") from None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data)

    def bytes_at(self, offset: int, count: int) -> NDArray[np.uint8]:
        """A read-only view of `count` bytes; the caller has checked that they are inside the file."""
        return np.frombuffer(self.data, dtype=np.uint8, count=count, offset=offset)

    def release(self, offset: int, count: int) -> None:
        """Let the whole pages inside these bytes leave this process's memory; reading brings them back."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + count) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin:
            self.data.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def close(self) -> None:
        """Give the mapping back; where arrays still look into it, the last of them does so."""
        try:
            self.data.close()
        except BufferError:
            return

    def __enter__(self) -> "MappedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()
