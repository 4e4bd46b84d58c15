"""Finds a wheel on a Python package index through the simple repository API (PEP 503 as HTML, PEP 691 as JSON)."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx
import msgspec

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"  # PEP 691


class IndexLookupError(Exception):
    """The index has no such wheel, cannot be reached, or speaks another language; another way may still work."""


@dataclass(frozen=True, slots=True)
class WheelLink:
    """Where a wheel is, and its hash in hexadecimal if the index tells."""

    url: str
    sha256: str | None


class _File(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}


class _Page(msgspec.Struct):
    files: list[_File]


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect link targets."""
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def find_wheel(client: httpx.Client, index: str, project: str, file_name: str) -> WheelLink:
    """Look one file up.

    Args:
        client: follows redirects and has a time limit.
        index: base URL of the simple repository API.
        project: name of the project.
        file_name: of the wheel.

    Raises:
        IndexLookupError: it is not to be had this way; the text says why.
    """
    url = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
    try:
        response = client.get(url, headers={"Accept": ACCEPT})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise IndexLookupError(f"{urlsplit(index).netloc} cannot be reached: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise IndexLookupError(f"{urlsplit(index).netloc} answers {response.status_code} for {project}")
    is_json = "json" in response.headers.get("content-type", "")
    links = _json_links(response) if is_json else _html_links(response)
    if file_name not in links:
        raise IndexLookupError(f"{urlsplit(index).netloc} has no {file_name}")
    return links[file_name]


def _json_links(response: httpx.Response) -> dict[str, WheelLink]:
    try:
        page = msgspec.json.decode(response.content, type=_Page)
    except msgspec.DecodeError as error:
        raise IndexLookupError(f"the index answers in an unknown form: {error}") from error
    base = str(response.url)
    return {file.filename: WheelLink(urljoin(base, file.url), file.hashes.get("sha256")) for file in page.files}


def _html_links(response: httpx.Response) -> dict[str, WheelLink]:
    parser = _Anchors()
    parser.feed(response.text)
    links = {}
    for target in parser.links:
        url, fragment = urldefrag(urljoin(str(response.url), target))
        kind, _, digest = fragment.partition("=")
        name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
        links[name] = WheelLink(url, digest if kind == "sha256" else None)
    return links
