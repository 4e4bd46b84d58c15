"""How a download is shown: a bar on stderr for a person, a line for a log."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class DownloadProgress(Protocol):
    """Told how a download goes."""

    def note(self, text: str) -> None:
        """Say something, such as terms of use or that another process is waited for."""
        ...

    def start(self, title: str, done: int, total: int | None) -> None:
        """A file of `total` bytes begins, of which `done` are already there."""
        ...

    def advance(self, num_bytes: int) -> None:
        """More bytes have arrived."""
        ...

    def finish(self) -> None:
        """The file is whole, or given up."""
        ...


class SilentProgress:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Ignored."""

    def start(self, title: str, done: int, total: int | None) -> None:
        """Ignored."""

    def advance(self, num_bytes: int) -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""


class TerminalProgress:
    """Bytes, speed and time left on stderr where it is a terminal, one plain line a file elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.finish()

    def note(self, text: str) -> None:
        """Write a line to stderr."""
        sys.stderr.write(f"{text}\n")

    def start(self, title: str, done: int, total: int | None) -> None:
        """Show a bar, or a line where stderr is no terminal."""
        if not sys.stderr.isatty():
            size = f" ({total / 1e6:.0f} MB)" if total else ""
            self.note(f"Getting {title}{size}" + (f", resuming at {done / 1e6:.0f} MB" if done else ""))
            return
        from rich.console import Console  # loaded only when there is something to show
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(title, total=total, completed=done)
        self._bar.start()

    def advance(self, num_bytes: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, num_bytes)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
