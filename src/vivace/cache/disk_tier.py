"""Blocks in files under a size limit: found by key, across restarts, for the model and KV format they were made with.

Files are written and read ahead by one thread of this tier, so that a step never waits for a disk that is slow; `get`
reads at once. What is in the folder is believed nowhere (see block_file.py). Blocks that a saved conversation pins are
not forgotten for room; all others go least recently used first, files of other fingerprints before all.
"""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue

from vivace.cache.block_file import SUFFIX, UNFINISHED_SUFFIX, read_block_file, write_block_file
from vivace.types.errors import StorageError
from vivace.types.step import BlockContent

logger = logging.getLogger(__name__)

MAX_UNWRITTEN = 256  # blocks that wait to be written; more are dropped, the disk is too slow for them


class DiskTier:
    """Keeps block contents in files by key. May be used from any thread.

    Args:
        folder: where files go, in a folder of the fingerprint's; made when it is not there.
        fingerprint: of the model and the way its keys and values are stored, 16 bytes.
        sizes: bytes that a content may have, one for each kind of layers.
        max_bytes: of all files together.

    Raises:
        StorageError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, fingerprint: bytes, sizes: Collection[int], max_bytes: int) -> None:
        self.folder = folder / fingerprint.hex()
        self._fingerprint = fingerprint
        self._block_sizes = tuple(sizes)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # oldest use first
        self._pins: Counter[bytes] = Counter()
        self._unwritten: dict[bytes, BlockContent] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.num_bytes = 0
        self.num_dropped = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_stock(folder)
        except OSError as error:
            raise StorageError(f"{folder} cannot keep blocks: {error}.", "Name a folder of yours.") from None
        self._worker = threading.Thread(target=self._work, name="vivace-disk", daemon=True)
        self._worker.start()

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def num_unwritten(self) -> int:
        """Blocks that wait to be written."""
        return len(self._unwritten)

    @property
    def num_pinned(self) -> int:
        """Blocks that somebody pins."""
        return len(self._pins)

    def __contains__(self, key: bytes) -> bool:
        return key in self._sizes or key in self._unwritten

    def put(self, key: bytes, content: BlockContent, *, must: bool = False) -> None:
        """Keep a content; returns before it is written. `must`: even if many wait to be written."""
        with self._lock:
            if key in self._sizes:
                self._sizes.move_to_end(key)
                return
            if key in self._unwritten:
                return
            if len(self._unwritten) >= MAX_UNWRITTEN and not must:
                self.num_dropped += 1
                return
            self._unwritten[key] = content
        self._jobs.put(lambda: self._write(key, content))

    def get(self, key: bytes) -> BlockContent | None:
        """The content of a key, read now; None when it is not here or the file is damaged."""
        with self._lock:
            waiting = self._unwritten.get(key)
            if waiting is not None:
                return waiting
            if key not in self._sizes:
                return None
            self._sizes.move_to_end(key)
        content = read_block_file(self._path(key), self._fingerprint, key, self._block_sizes)
        if content is None:
            self.discard(key)
        return content

    def read_ahead(self, keys: Sequence[bytes], take: Callable[[dict[bytes, BlockContent]], None]) -> None:
        """Read the longest run of `keys` in this tier's thread and call `take` there with it; returns at once."""

        def job() -> None:
            contents = {}
            for key in keys:
                content = self.get(key)
                if content is None:
                    break
                contents[key] = content
            take(contents)

        self._jobs.put(job)

    def pin(self, keys: Iterable[bytes]) -> None:
        """These stay, whatever the room; to be let go once for each time with `unpin`."""
        with self._lock:
            self._pins.update(keys)

    def unpin(self, keys: Iterable[bytes], *, forget: bool = False) -> None:
        """Let go; `forget`: delete the files that nobody else pins."""
        for key in keys:
            with self._lock:
                self._pins[key] -= 1
                is_free = self._pins[key] <= 0
                if is_free:
                    del self._pins[key]
            if is_free and forget:
                self.discard(key)

    def discard(self, key: bytes) -> None:
        """Forget a key and delete its file."""
        with self._lock:
            self._unwritten.pop(key, None)
            self.num_bytes -= self._sizes.pop(key, 0)
        self._path(key).unlink(missing_ok=True)

    def flush(self) -> None:
        """Wait until everything asked for so far is done."""
        done = threading.Event()
        self._jobs.put(done.set)
        done.wait()

    def close(self) -> None:
        """Write what waits and end the thread; may be called twice."""
        self._jobs.put(None)
        self._worker.join()

    # This tier's thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("a block could not be moved")

    def _write(self, key: bytes, content: BlockContent) -> None:
        with self._lock:
            if key not in self._unwritten:  # discarded before it was written
                return
        try:
            size = write_block_file(self._path(key), self._fingerprint, key, content)
        except OSError as error:
            logger.warning("a block could not be written to %s: %s", self.folder, error)
            with self._lock:
                self._unwritten.pop(key, None)
                self.num_dropped += 1
            return
        with self._lock:
            was_wanted = self._unwritten.pop(key, None) is not None
            if was_wanted:
                self._sizes[key] = size
                self.num_bytes += size
            oldest = self._over_limit()
        if not was_wanted:  # discarded while it was written
            self._path(key).unlink(missing_ok=True)
        for each in oldest:
            self._path(each).unlink(missing_ok=True)

    def _over_limit(self) -> list[bytes]:
        """Take out of the books what has to go; the lock is held."""
        gone = []
        for key in [key for key in self._sizes if key not in self._pins] if self.num_bytes > self._max_bytes else ():
            if self.num_bytes <= self._max_bytes:
                break
            self.num_bytes -= self._sizes.pop(key)
            gone.append(key)
        return gone

    def _take_stock(self, root: Path) -> None:
        """Know the files that are there, oldest first; remove what was not finished, and what is too much."""
        for unfinished in self.folder.glob(f"*{UNFINISHED_SUFFIX}"):
            unfinished.unlink(missing_ok=True)
        strangers = []
        for path in root.glob(f"*/*{SUFFIX}"):
            stat = path.stat()
            strangers.append((path.parent == self.folder, stat.st_mtime_ns, path, stat.st_size))
        total = sum(size for *_, size in strangers)
        for is_mine, _, path, size in sorted(strangers):
            key = _key_of(path)
            if key is None or (not is_mine and total > self._max_bytes):
                path.unlink(missing_ok=True)
                total -= size
            elif is_mine:
                self._sizes[key] = size
                self.num_bytes += size

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{SUFFIX}"


def _key_of(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(path.stem)
    except ValueError:
        return None
