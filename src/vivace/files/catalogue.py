"""Models by name: what there is, where it lies, and how to get it or be rid of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.files.cache_folder import cache_folder, storage_errors
from vivace.files.catalogue_rows import DEFAULT_MODEL, LOCK_NAME, ROWS, CatalogueRow
from vivace.types.errors import CatalogueError

if TYPE_CHECKING:
    from vivace.files.progress import DownloadProgress


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model without running it.

    Attributes:
        name: what users type.
        summary: what it is, in a phrase.
        path: the model file or folder; None when it is not pulled.
        num_bytes: size of the model file or of the folder's tensors.
        sha256: of the model file, in hexadecimal; None for a folder.
        licence: its name, None when the file does not say.
        source: where it comes from.
        chat_template: a phrase for catalogue models, the template itself for other files, None when there is none.
        default: it is the model that is used when none is named.
    """

    name: str
    summary: str
    path: Path | None
    num_bytes: int
    sha256: str | None
    licence: str | None
    source: str
    chat_template: str | None
    default: bool = False


def list_models() -> list[ModelCard]:
    """Cards of all catalogue models, pulled or not."""
    folder = cache_folder()
    return [_row_card(row, folder) for row in ROWS.values()]


def show(name: str) -> ModelCard:
    """The card of a catalogue model or of a model on disk; nothing is downloaded.

    Raises:
        CatalogueError: there is no such model.
        ModelFileError: the file is damaged.
        UnsupportedModelError: vivace does not run such models.
    """
    if name in ROWS:
        return _row_card(ROWS[name], cache_folder())
    path = Path(name).expanduser()
    if not path.exists():
        raise unknown_model(name)
    from vivace.files.local_card import read_card  # opens the model: numpy and all

    return read_card(path)


def pull(name: str, progress: "DownloadProgress | None" = None) -> Path:
    """Make sure a catalogue or hub model is on disk.

    Args:
        name: a catalogue name or a hub id.
        progress: told how it goes; on stderr when left out.

    Returns:
        The model file or folder.

    Raises:
        CatalogueError: there is no such model, or its download failed.
        StorageError: the disk is full, or the cache folder cannot be written.
        MissingExtraError: a hub id, and the package for it is not installed.
    """
    if name not in ROWS:
        from vivace.files.hub import is_hub_id, pull_from_hub  # needed for few names

        if is_hub_id(name):
            return pull_from_hub(name)
        raise unknown_model(name)
    found = pulled_path(name)
    if found is not None:
        return found
    from vivace.files.progress import TerminalProgress  # a start from disk must not pay for these
    from vivace.files.pull import pull_row

    with TerminalProgress() as terminal:
        return pull_row(ROWS[name], cache_folder(), progress or terminal)


def pulled_path(name: str) -> Path | None:
    """Where a catalogue model lies, or None when it is not pulled."""
    return ROWS[name].pulled_in(cache_folder()) if name in ROWS else None


def remove(name: str) -> int:
    """Delete a catalogue model from the cache, and what an interrupted pull has left of it.

    Returns:
        Bytes freed; 0 when there was nothing.

    Raises:
        CatalogueError: no catalogue model has this name.
        StorageError: it cannot be deleted.
    """
    if name not in ROWS:
        raise unknown_model(name)
    folder = cache_folder() / "models" / name
    freed = 0
    with storage_errors(folder):
        for file in sorted(folder.glob("*")):
            if file.name == LOCK_NAME:  # another process may hold it
                continue
            size = file.stat().st_size
            file.unlink()
            freed += size
    return freed


def resolve(name: str) -> Path:
    """The file or folder that a user's word for a model means; pulled first if it must be.

    A catalogue name wins over a file of that name (write ./name for the file); then comes what exists on disk, then hub
    ids.

    Raises:
        CatalogueError: nothing of that name exists, or its download failed.
        StorageError: the disk is full, or the cache folder cannot be written.
        MissingExtraError: a hub id, and the package for it is not installed.
    """
    if name not in ROWS:
        path = Path(name).expanduser()
        if name and path.exists():  # "" would mean the current folder
            return path
        if looks_like_path(name):
            raise CatalogueError(f"{name} does not exist.", "Check the path, or see `vivace models list` for names.")
    return pull(name)


def looks_like_path(name: str) -> bool:
    """Whether a word can only be meant as a path."""
    return name.startswith((".", "/", "~", "\\")) or (name.endswith(".gguf") and ":" not in name)


def unknown_model(name: str) -> CatalogueError:
    """The error for a name nobody knows, with the nearest one that is known."""
    import difflib  # only for errors

    near = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    return CatalogueError(
        f"There is no model {name!r}.",
        f"{hint}Known are {', '.join(ROWS)}, paths of .gguf files or folders, and hub ids owner/name.",
    )


def _row_card(row: CatalogueRow, folder: Path) -> ModelCard:
    projects = list(dict.fromkeys(piece.project for piece in row.pieces))
    return ModelCard(
        name=row.name,
        summary=row.summary,
        path=row.pulled_in(folder),
        num_bytes=row.num_bytes,
        sha256=row.sha256,
        licence=row.licence,
        source=f"Python package index: {', '.join(projects)}",
        chat_template=row.chat_template,
        default=row.name == DEFAULT_MODEL,
    )
