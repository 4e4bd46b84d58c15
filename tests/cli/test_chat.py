"""`vivace chat`, with piped input and on a real pseudo-terminal."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from factories.scripted_service import SCRIPT

SCRIPTED = Path(__file__).parents[1] / "factories" / "scripted_vivace.py"
TEXT = "".join(SCRIPT)
DEADLINE_S = 60
READY = "scripted is ready"


def chat_piped(text: str | bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    data = text.encode() if isinstance(text, str) else text
    command = [sys.executable, str(SCRIPTED), "{}", "chat", *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE_S, check=False)


def test_each_piped_line_is_a_message() -> None:
    done = chat_piped("hello\n\nagain\nlast")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{TEXT}\n" * 3


def test_a_backslash_joins_lines_and_commands_work(tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    done = chat_piped(
        f"/system Be brief.\none\\\ntwo\n/stats\n/save {saved}\n/reset\n/save {saved}.md\n/exit\nunread\n"
    )
    assert done.stdout.decode() == TEXT + "\n"
    assert f"{len(SCRIPT)} written" in done.stderr.decode()
    assert json.loads(saved.read_text(encoding="utf-8"))["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": TEXT},
    ]
    assert Path(f"{saved}.md").read_text(encoding="utf-8") == "## system\n\nBe brief.\n"


def test_a_message_that_cannot_be_answered_does_not_end_the_chat() -> None:
    done = chat_piped("x" * 600 + "\n/nonsense\n/save\n/save /no/such/folder/file\nhello\n")
    assert done.returncode == 2
    assert done.stdout.decode() == TEXT + "\n"
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("vivace: error: ") for line in lines)


def test_a_line_that_is_not_utf8_is_refused() -> None:
    done = chat_piped(b"ab\xff\nhello\n")
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr
    assert done.stdout.decode() == TEXT + "\n"


class Terminal:
    """The program's end of a pseudo-terminal, read until something expected shows."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self._master = master
        self.process = process
        self.screen = ""

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait until the output after the last match has `pattern`; returns what came up to there."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern, self.screen)):
            left_s = deadline_s - time.monotonic()
            readable, _, _ = select.select([self._master], [], [], max(0, left_s))
            assert readable, f"no {pattern!r} in {self.screen!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""
            assert data, f"ended without {pattern!r}: {self.screen!r}"
            self.screen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        seen, self.screen = self.screen[: match.end()], self.screen[match.end() :]
        return seen

    def leave(self) -> int:
        """Press Ctrl-D until the program ends (a key pressed between two prompts may be lost); its exit status."""
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            self.send("\x04")
            try:
                return self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"the program does not end: {self.screen!r}")


@contextmanager
def chat_on_terminal(state: Path, options: str = "{}", *arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    command = [sys.executable, str(SCRIPTED), options, "chat", *arguments]
    environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(state), "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)
        os.close(master)


def test_a_talk_on_a_terminal(tmp_path: Path) -> None:
    with chat_on_terminal(tmp_path) as terminal:
        terminal.expect(READY)
        terminal.expect(">")
        terminal.send("hello\r")
        terminal.expect(re.escape(TEXT))
        terminal.expect(">")
        terminal.send("/help\r")
        terminal.expect("/save FILE")
        terminal.expect(">")
        assert terminal.leave() == 0
    history = tmp_path / "vivace" / "chat_history"
    assert "+hello" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_alt_enter_and_backslash_start_new_lines(tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    with chat_on_terminal(tmp_path) as terminal:
        terminal.expect(READY)
        terminal.expect(">")
        terminal.send("one\x1b\rtwo\\\rthree\r")
        terminal.expect(re.escape(TEXT))
        terminal.expect(">")
        terminal.send(f"/save {saved}\r")
        terminal.expect("turns saved")
        terminal.expect(">")
        terminal.send("/exit\r")
        assert terminal.process.wait(DEADLINE_S) == 0
    assert json.loads(saved.read_text())["messages"][0]["content"] == "one\ntwo\nthree"


@pytest.mark.parametrize("by_key", [True, False])
def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path, by_key: bool) -> None:
    saved = tmp_path / "talk.json"
    with chat_on_terminal(tmp_path, '{"hold_at": 3, "controlling_terminal": true}') as terminal:
        terminal.expect(READY)
        terminal.expect(">")
        terminal.send("hello\r")
        terminal.expect("Hello, wor")
        if by_key:
            terminal.send("\x03")
        else:
            os.kill(terminal.process.pid, signal.SIGINT)
        terminal.expect(re.escape("(stopped)"))
        terminal.expect(">")
        terminal.send(f"/save {saved}\r")
        terminal.expect("turns saved")
        terminal.expect(">")
        terminal.send("\x03")
        terminal.expect(">")
        assert terminal.leave() == 0
    assert json.loads(saved.read_text())["messages"][1]["content"] == "Hello, wor"


def test_no_history_keeps_no_file(tmp_path: Path) -> None:
    with chat_on_terminal(tmp_path, "{}", "--no-history") as terminal:
        terminal.expect(READY)
        terminal.expect(">")
        terminal.send("hello\r")
        terminal.expect(re.escape(TEXT))
        terminal.expect(">")
        assert terminal.leave() == 0
    assert not (tmp_path / "vivace").exists()


def test_control_characters_of_a_model_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with chat_on_terminal(tmp_path, json.dumps({"script": ["a\x1b]0;title\x07b", "\x9b2Jc", "\td"]})) as terminal:
        terminal.expect(READY)
        terminal.expect(">")
        terminal.send("hello\r")
        terminal.expect(re.escape("a]0;titleb2Jc"))
        terminal.expect(">")
        assert terminal.leave() == 0
