"""Downloads one file over HTTP: resumes where it was cut, and believes nothing before the hash agrees."""

import hashlib
import time
from pathlib import Path

import httpx

from vivace.files.cache_folder import storage_errors
from vivace.files.package_index import WheelLink
from vivace.files.progress import DownloadProgress
from vivace.types.errors import CatalogueError

MAX_FRUITLESS_TRIES = 4
PAUSE_S = 0.5  # before the second try; doubled before each further one
TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class InterruptedDownloadError(Exception):
    """The connection broke; what has arrived is kept."""


def new_client() -> httpx.Client:
    """A client that follows redirects and honours the usual proxy and certificate variables."""
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers={"User-Agent": "vivace"})


def download(client: httpx.Client, link: WheelLink, target: Path, progress: DownloadProgress) -> None:
    """Download to `target`. Bytes that are already there are kept, and only the rest is asked for.

    Args:
        client: as `new_client` makes.
        link: where from, and the hash to hold it against.
        target: the file; it may be there in part from an earlier try.
        progress: told how it goes.

    Raises:
        CatalogueError: the server refuses, breaks off too often, or sends other bytes than the hash promises.
        StorageError: the disk is full or cannot be written.
    """
    resumed = _size(target) > 0
    _download_persistently(client, link, target, progress)
    if link.sha256 is None or file_sha256(target) == link.sha256:
        return
    target.unlink()
    if resumed:  # what lay there from an earlier try may have been the fault
        download(client, link, target, progress)
        return
    raise CatalogueError(
        f"{link.url.rsplit('/', 1)[-1]} arrived damaged: its hash is not the one the index promises.",
        "Try again; if it stays so, the package index is at fault.",
    )


def _download_persistently(client: httpx.Client, link: WheelLink, target: Path, progress: DownloadProgress) -> None:
    """Go on after breaks, until `MAX_FRUITLESS_TRIES` in a row have brought nothing."""
    fruitless = 0
    while True:
        before = _size(target)
        try:
            _download_rest(client, link, target, progress)
            return
        except (httpx.TransportError, InterruptedDownloadError) as error:
            fruitless = fruitless + 1 if _size(target) <= before else 0
            if fruitless == MAX_FRUITLESS_TRIES:
                raise CatalogueError(
                    f"The download of {target.stem} broke off: {error}.",
                    "Try again; it will go on where it stopped.",
                ) from error
            time.sleep(PAUSE_S * 2**fruitless)
        finally:
            progress.finish()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_rest(client: httpx.Client, link: WheelLink, target: Path, progress: DownloadProgress) -> None:
    done = _size(target)
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
