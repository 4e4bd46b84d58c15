"""Where the messages of `vivace chat` come from: an editor line on a terminal, else the lines of standard input."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vivace.types.errors import RequestError

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings


class LineInput(Protocol):
    """A source of messages."""

    def read(self) -> str:
        """The next message, which may have several lines.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: Ctrl-C on a terminal.
        """
        ...


class PipedInput:
    """Each line is a message; a backslash at its end joins the next line to it."""

    def __init__(self, lines: Iterator[bytes] | None = None) -> None:
        self._lines = sys.stdin.buffer if lines is None else lines

    def read(self) -> str:
        """The next message; RequestError if it is not UTF-8."""
        parts: list[str] = []
        for line in self._lines:
            text = _decode(line)
            if not text.endswith("\\"):
                return "\n".join([*parts, text])
            parts.append(text.removesuffix("\\"))
        if parts:
            return "\n".join(parts)
        raise EOFError


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise RequestError("A line of standard input is not UTF-8.", "Convert the input to UTF-8.") from None


class TerminalInput:
    """A line editor with history. Enter sends; Alt-Enter, or Enter after a backslash, starts a new line."""

    def __init__(self, history_path: Path | None) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession(
            history=_open_history(history_path), key_bindings=_key_bindings(), multiline=True
        )

    def read(self) -> str:
        """The next message."""
        return self._session.prompt("> ", prompt_continuation=". ")


def _key_bindings() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _open_history(path: Path | None) -> "History":
    """A history in a file only its owner reads; one in memory where that file cannot be had."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
