"""What the command says when something goes wrong, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vivace.cli import generate
from vivace.cli.main import COMMANDS, build_parser, main
from vivace.types.errors import ModelFileError

SCRIPTED = Path(__file__).parents[1] / "factories" / "scripted_vivace.py"
RunVivace = Callable[..., int]


def run_scripted(*arguments: str, options: str = "{}", **more: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    command = [sys.executable, str(SCRIPTED), options, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ModelFileError("The file\n is torn.", "Get it again."), 2, "vivace: error: The file is torn. Get it again.\n"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "vivace: error: internal error: ZeroDivisionError: division by zero "
            "Run with VIVACE_DEBUG=1 for the traceback.\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_with_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(generate, "run", fail)
    monkeypatch.delenv("VIVACE_DEBUG", raising=False)
    assert main(["generate", "x"]) == status
    assert capsys.readouterr() == ("", line)


def test_debug_shows_the_traceback_of_internal_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "run", lambda arguments: 1 / 0)
    monkeypatch.setenv("VIVACE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["generate", "x"])


@pytest.mark.parametrize("arguments", [["--help"], *([name.replace("_", " "), "--help"] for name in COMMANDS)])
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(arguments)
    assert ended.value.code == 0
    assert "usage: vivace" in capsys.readouterr().out


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("vivace")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "vivace", "nonsense"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"vivace: error: ")


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "msgspec", "starlette", "uvicorn", "tokenizers", "jinja2", "prompt_toolkit", "asyncio", "httpx")
    script = (
        "import sys; from vivace.cli.main import build_parser; build_parser(); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(SCRIPTED), "{}", "generate", "hello"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_generate_after_the_line() -> None:
    command = [sys.executable, str(SCRIPTED), '{"hold_at": 2}', "generate", "hello"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(7) == b"Hello, "
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"\n", b"")
    assert process.returncode == 130


def test_a_narrow_output_encoding_is_no_error() -> None:
    done = run_scripted("generate", "hello", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Hello, world! ")


def test_a_model_that_fails_to_load_is_one_line() -> None:
    done = run_scripted("generate", "hello", options='{"load_error": "The file is torn."}')
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"vivace: error: The file is torn. Get it again.\n"


def test_an_argument_that_is_not_utf8_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTED), "{}", "generate", b"ab\xff"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"vivace: error: ")
    assert done.stderr.count(b"\n") == 1
