"""Downloads one file over HTTP: resumes where it was cut, and believes nothing before the hash agrees."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from vivace.files.cache_folder import storage_errors
from vivace.files.package_index import WheelLink
from vivace.files.progress import DownloadProgress
from vivace.types.errors import CatalogueError

MAX_TRIES = 5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class InterruptedDownloadError(Exception):
    """The connection broke; what has arrived is kept."""


def new_client() -> httpx.Client:
    """A client that follows redirects and honours the usual proxy and certificate variables."""
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers={"User-Agent": "vivace"})


def download(
    client: httpx.Client,
    link: WheelLink,
    target: Path,
    progress: DownloadProgress,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Download to `target`. Bytes that are already there are kept, and only the rest is asked for.

    Args:
        client: as `new_client` makes.
        link: where from, and the hash to hold it against.
        target: the file; it may be there in part from an earlier try.
        progress: told how it goes.
        wait: pauses between tries, in seconds.

    Raises:
        CatalogueError: the server refuses, breaks off too often, or sends other bytes than the hash promises.
        StorageError: the disk is full or cannot be written.
    """
    resumed = target.exists() and target.stat().st_size > 0
    for attempt in range(MAX_TRIES):
        try:
            _download_rest(client, link, target, progress)
            break
        except (httpx.TransportError, InterruptedDownloadError) as error:
            if attempt == MAX_TRIES - 1:
                raise CatalogueError(
                    f"The download of {target.stem} broke off: {error}.",
                    "Try again; it will go on where it stopped.",
                ) from error
            wait(0.5 * 2**attempt)
        finally:
            progress.finish()
    if link.sha256 is None or file_sha256(target) == link.sha256:
        return
    target.unlink()
    if resumed:  # what lay there from an earlier try may have been the fault
        download(client, link, target, progress, wait)
        return
    raise CatalogueError(
        f"{link.url.rsplit('/', 1)[-1]} arrived damaged: its hash is not the one the index promises.",
        "Try again; if it stays so, the package index is at fault.",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_rest(client: httpx.Client, link: WheelLink, target: Path, progress: DownloadProgress) -> None:
    with storage_errors(target.parent):
        done = target.stat().st_size if target.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with client.stream("GET", link.url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to get: the hash tells whether it is the right file
        if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise CatalogueError(f"{link.url} answers {response.status_code}.", "Try again later.")
        if response.status_code == httpx.codes.OK or not _continues_at(response, done):
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                raise CatalogueError(f"{link.url} sends a piece that was not asked for.", "Try again later.")
            done = 0
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdigit() else None
        progress.start(target.stem, done, total)
        arrived = done + _save(response, target, done, progress)
    if total is not None and arrived < total:
        raise InterruptedDownloadError(f"{arrived} of {total} bytes arrived")


def _save(response: httpx.Response, target: Path, done: int, progress: DownloadProgress) -> int:
    arrived = 0
    with storage_errors(target.parent), target.open("ab") as file:
        file.truncate(done)
        for chunk in response.iter_raw():
            file.write(chunk)
            arrived += len(chunk)
            progress.advance(len(chunk))
    return arrived


def _continues_at(response: httpx.Response, done: int) -> bool:
    return str(response.headers.get("content-range", "")).startswith(f"bytes {done}-")
