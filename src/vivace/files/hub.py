"""Models from a hub of checkpoints by id, `owner/name` or `owner/name:file.gguf`, through `huggingface_hub`."""

import importlib
import os
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import ModuleType

from vivace.types.errors import CatalogueError, MissingExtraError

_ID = re.compile(r"(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?::(?P<file>[\w./ -]+\.gguf))?")
TIMEOUT_S = 15.0
FOLDER_FILES = ["*.json", "*.jinja", "*.safetensors"]


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id."""
    return _ID.fullmatch(name) is not None


def pull_from_hub(name: str) -> Path:
    """Download a model, or find it in the hub's own cache, which also serves without a network.

    Args:
        name: `owner/name` (a safetensors checkpoint, or a repository with one GGUF file) or `owner/name:file.gguf`.

    Returns:
        A GGUF file or a Hugging Face folder.

    Raises:
        MissingExtraError: `huggingface_hub` is not installed.
        CatalogueError: no such model, no access, no network, or a choice of files is needed.
    """
    match = _ID.fullmatch(name)
    if match is None:
        raise CatalogueError(f"{name!r} is no hub id.", "Write owner/name or owner/name:file.gguf.")
    hub = _load_client()
    repository = match["repository"]
    endpoint = os.environ.get("HF_ENDPOINT")  # read here, as the client reads it only once, at import
    try:
        files = _online_files(hub, repository, endpoint)
        offline = files is None
        file_name = match["file"] or _choose_file(repository, files or _cached_files(hub, repository))
        where = {"endpoint": endpoint, "local_files_only": offline}
        if file_name is None:
            return Path(hub.snapshot_download(repository, allow_patterns=FOLDER_FILES, **where))
        return Path(hub.hf_hub_download(repository, file_name, **where))
    except CatalogueError:
        raise
    except Exception as error:  # the client passes on whatever its HTTP library raises, and that changes by version
        raise _explained(hub, name, error) from error


def _load_client() -> ModuleType:
    try:
        importlib.import_module("huggingface_hub.errors")  # an optional extra
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingExtraError(
            "Models from a hub need the package huggingface_hub.", "Run: pip install 'vivace[hub]'"
        ) from None
    hub.logging.set_verbosity_error()  # its retries are no news for a user; its errors reach us as exceptions
    return hub


def _choose_file(repository: str, files: list[str]) -> str | None:
    """The repository's only GGUF file, or None for a safetensors checkpoint."""
    if "config.json" in files and any(file.endswith(".safetensors") for file in files):
        return None
    models = [file for file in files if PurePosixPath(file).suffix == ".gguf"]
    if len(models) == 1:
        return models[0]
    if not models:
        raise CatalogueError(f"{repository} has neither GGUF nor safetensors files.", "Choose another repository.")
    shown = ", ".join(models[:8]) + (", ..." if len(models) > 8 else "")
    raise CatalogueError(
        f"{repository} has {len(models)} GGUF files: {shown}.", f"Choose one: {repository}:{models[0]}"
    )


def _online_files(hub: ModuleType, repository: str, endpoint: str | None) -> list[str] | None:
    """Names of the repository's files, or None when the hub cannot be reached."""
    try:
        info = hub.HfApi(endpoint=endpoint).model_info(repository, timeout=TIMEOUT_S)
    except hub.errors.HfHubHTTPError:
        raise
    except Exception:  # no network, see above: what is in the hub's cache may do
        return None
    return [file.rfilename for file in info.siblings or ()]


def _cached_files(hub: ModuleType, repository: str) -> list[str]:
    """Names of the files that the hub's cache has of a repository.

    Raises:
        CatalogueError: it has none.
    """
    with suppress(hub.errors.CacheNotFound):
        for cached in hub.scan_cache_dir().repos:
            revision = cached.refs.get("main")
            if cached.repo_id == repository and cached.repo_type == "model" and revision is not None:
                files = [Path(file.file_path) for file in revision.files]
                return [file.relative_to(revision.snapshot_path).as_posix() for file in files]
    raise _unreachable(repository)


def _unreachable(name: str) -> CatalogueError:
    return CatalogueError(
        f"The hub cannot be reached, and {name} is not in its cache.",
        "Check the network, or give the path of a model file you have.",
    )


def _explained(hub: ModuleType, name: str, error: Exception) -> CatalogueError:
    kinds = (
        (hub.errors.GatedRepoError, f"{name} needs its terms to be accepted.", "Accept them there, then set HF_TOKEN."),
        (
            hub.errors.RepositoryNotFoundError,
            f"{name} is not on the hub.",
            "Check its spelling; see HF_TOKEN for private ones.",
        ),
        (hub.errors.EntryNotFoundError, f"{name}: no such file in the repository.", "Check its spelling."),
        (hub.errors.HFValidationError, f"{name} is no valid hub id.", "Write owner/name or owner/name:file.gguf."),
    )
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return _unreachable(name)
    for kind, what, mend in kinds:
        if isinstance(error, kind):
            return CatalogueError(what, mend)
    reason = str(error).strip().split("\n")[0][:200]
    return CatalogueError(f"{name} cannot be downloaded: {reason}", "Check the network, or give a model file you have.")
