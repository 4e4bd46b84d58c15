"""Models from a hub of checkpoints by id, `owner/name` or `owner/name:file.gguf`, through `huggingface_hub`."""

import importlib
import os
import re
from pathlib import Path, PurePosixPath
from types import ModuleType

from vivace.types.errors import CatalogueError, MissingExtraError

_ID = re.compile(r"(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?::(?P<file>[\w./ -]+\.gguf))?")
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
        file_name = match["file"] or _choose_file(hub, repository, endpoint)
        if file_name is None:
            return Path(hub.snapshot_download(repository, allow_patterns=FOLDER_FILES, endpoint=endpoint))
        return Path(hub.hf_hub_download(repository, file_name, endpoint=endpoint))
    except (OSError, ValueError, hub.errors.HfHubHTTPError, _transport_error()) as error:
        raise _explained(hub, name, error) from error


def _load_client() -> ModuleType:
    try:
        importlib.import_module("huggingface_hub.errors")  # an optional extra
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingExtraError(
            "Models from a hub need the package huggingface_hub.", "Run: pip install 'vivace[hub]'"
        ) from None


def _transport_error() -> type[Exception]:
    import httpx  # what current versions of the hub's client raise when there is no network

    return httpx.HTTPError


def _choose_file(hub: ModuleType, repository: str, endpoint: str | None) -> str | None:
    """The repository's only GGUF file, or None for a safetensors checkpoint."""
    try:
        files: list[str] = hub.HfApi(endpoint=endpoint).list_repo_files(repository)
    except (OSError, _transport_error()) as error:
        if isinstance(error, hub.errors.HfHubHTTPError) and error.response is not None:
            raise
        folder = Path(hub.snapshot_download(repository, local_files_only=True))
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
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
    for kind, what, mend in kinds:
        if isinstance(error, kind) and not isinstance(error, hub.errors.LocalEntryNotFoundError):
            return CatalogueError(what, mend)
    reason = str(error).strip().split("\n")[0][:200]
    return CatalogueError(
        f"{name} cannot be downloaded: {reason}", "Check the network, or give the path of a model file you have."
    )
