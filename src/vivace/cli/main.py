"""The `vivace` command: one parser, one file per command, and one line for whatever goes wrong.

A command module exports NAME, HELP, `add_arguments(parser)` and `run(arguments) -> exit status`. It imports nothing
heavy before `run`, so that help and mistakes in the arguments answer at once.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from vivace.types.errors import ConfigError, VivaceError

COMMANDS = (
    "chat",
    "generate",
    "serve",
    "models",
    "bench",
    "plan",
    "compress",
    "compress_doctor",
    "evaluate",
    "evaluate_ab",
    "evaluate_harness",
)
"""Modules of `vivace.cli`, in the order that help shows them; those of two words have them joined by "_"."""

INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells have it


class Command(Protocol):
    """What a command module exports (modules have no self)."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Carry the command out; returns the exit status."""
        ...


class OneLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are one line too."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise ConfigError(f"{message}.", f"See '{self.prog} --help'.")


class ShowVersion(argparse.Action):
    """Prints the version; reads the package's metadata only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"vivace {version('vivace')}")
        except PackageNotFoundError:
            print("vivace, run from its source without being installed")
        parser.exit()


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of some commands; modules of the others are not imported."""
    parser = OneLineParser(prog="vivace", description="Chat with a language model that runs on this machine.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        command = cast(Command, importlib.import_module(f"vivace.cli.{name}"))
        description = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        subparser = commands.add_parser(command.NAME, help=command.HELP, description=description)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; those of the process when None.

    Returns:
        The exit status: 0, the error's own, 1 for a mistake of ours, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an answer in Chinese must not fail on a narrow terminal
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except VivaceError as error:
        return _complain(error, error.exit_status)
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except BrokenPipeError:
        return _leave_broken_pipe()
    except Exception as error:
        if os.environ.get("VIVACE_DEBUG"):
            raise
        summary = f"internal error: {type(error).__name__}: {error}"
        return _complain(VivaceError(summary, "Run with VIVACE_DEBUG=1 for the traceback."), 1)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse with the asked command alone where it is plain which one it is."""
    for count in (2, 1):
        module = "_".join(argv[:count])
        if module in COMMANDS:
            return build_parser([module]).parse_args([module.replace("_", " "), *argv[count:]])
    return build_parser().parse_args(argv)


def _complain(error: VivaceError, status: int) -> int:
    line = " ".join(str(error).split())
    print(f"vivace: error: {line}", file=sys.stderr)
    return status


def _leave_broken_pipe() -> int:
    """The reader of our output has left (`vivace ... | head`): end quietly, also when the interpreter flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13  # SIGPIPE, as shells have it
