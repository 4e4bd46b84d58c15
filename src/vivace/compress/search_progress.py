"""What a search has found by the time it is stopped: what parts suffer, what formats take, what each trial measured.

Lies beside the layers that are kept of the trial at work (`checkpoint.py`), under a key of the whole search. What
belongs to another search, or cannot be read, is found anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from vivace.compress.checkpoint import Checkpoint, fingerprint, run_key
from vivace.compress.recipe import Recipe
from vivace.files.open import LoadedModel

T = TypeVar("T")
_PREFIX = "found "
TRIAL = "trial "
PARTS = "parts"


class Recall(Protocol):
    """Gives a value by its name: what was kept of it, or else what `find` finds, which is kept."""

    def __call__(self, name: str, kind: type[T], find: Callable[[], T]) -> T:
        """The value; `kind` is what it is read back as."""
        ...


def find_anew(name: str, kind: type[T], find: Callable[[], T]) -> T:
    """Recalls nothing and keeps nothing."""
    return find()


class SearchProgress:
    """Values kept beside a search's output.

    Args:
        checkpoint: of the whole search's key.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __call__(self, name: str, kind: type[T], find: Callable[[], T]) -> T:
        """See `Recall`.

        Raises:
            StorageError: there is no room.
        """
        kept = self._checkpoint.kept_beside(_PREFIX + name)
        if kept is not None:
            try:
                return msgspec.json.decode(kept, type=kind)
            except msgspec.MsgspecError:
                pass  # damaged: found anew
        value = find()
        self._checkpoint.keep_beside(_PREFIX + name, msgspec.json.encode(value))
        return value


def place_of_search(device: str, budget: object) -> str:
    """What a search's key has in place of a device: its budget as well."""
    return f"{device} {budget!r}"


def found_so_far(folder: Path, source: LoadedModel, recipe: Recipe, place: str) -> tuple[bool, int]:
    """Whether a stopped search has measured its parts, and how many trials it has made, whatever text it read."""
    files = sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []
    if not files:
        return False, 0
    job = run_key(fingerprint(source.spec, source.weights), recipe, [], place).split()[0].encode()
    names = [file.name.removeprefix(_PREFIX) for file in files if _starts_with(file, job)]
    return PARTS in names, sum(name.startswith(TRIAL) for name in names)


def _starts_with(file: Path, job: bytes) -> bool:
    try:
        with file.open("rb") as held:
            return held.read(len(job) + 1) == job + b" "
    except OSError:
        return False
