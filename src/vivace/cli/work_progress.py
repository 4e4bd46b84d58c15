"""Progress of long work on standard error: a bar with time left for a person, a line every few seconds for a log."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 15.0


class WorkProgress:
    """Called with (steps done, steps in all, what is being done); a context manager that takes the bar away."""

    def __init__(self) -> None:
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show how far the work is."""
        if total != self._total:  # another kind of work begins
            self._total, self._started = total, time.monotonic()
            if self._bar is not None and self._task is not None:
                self._bar.reset(self._task, total=total)
        if sys.stderr.isatty():
            self._show_bar(done, total, what)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES and done:
            self._last_line = now
            left = (now - self._started) / done * (total - done)
            sys.stderr.write(f"{what}: {done / total:.0%}, about {left:.0f} s left\n")

    def _show_bar(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            from rich.console import Console  # loaded only when there is something to show
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, description=what, completed=done, total=total)
