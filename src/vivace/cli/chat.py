"""`vivace chat`: a conversation in the terminal. Ctrl-C stops the answer and not the program; Ctrl-D leaves."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from vivace.cli.chat_session import ChatSession, LeaveChat, say
from vivace.cli.conversation import Conversation
from vivace.cli.line_input import LineInput, PipedInput, TerminalInput
from vivace.cli.model_options import add_model_options, open_service
from vivace.cli.sampling_options import add_sampling_options
from vivace.types.errors import VivaceError

NAME = "chat"
HELP = "talk with a model in the terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--no-history", action="store_true", help="keep no history file of what is typed")
    add_sampling_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Talk until the input ends.

    Returns:
        0; with piped input, the exit status of the last message that could not be answered, if any.

    Raises:
        VivaceError: no such model, or a wrong option.
    """
    on_terminal = sys.stdin.isatty()
    lines: LineInput = TerminalInput(_history_path(arguments)) if on_terminal else PipedInput()
    with closing(open_service(arguments)) as service:
        session = ChatSession(service, arguments, Conversation(arguments.system))
        if on_terminal:
            say(f"{service.name} is ready. /help lists the commands, Ctrl-D leaves.")
        status = _talk(session, lines)
    return 0 if on_terminal else status


def _talk(session: ChatSession, lines: LineInput) -> int:
    status = 0
    while True:
        try:
            session.handle(lines.read())
        except KeyboardInterrupt:
            if isinstance(lines, PipedInput):
                raise
        except (EOFError, LeaveChat):
            return status
        except VivaceError as error:
            say(f"vivace: error: {error}")
            status = error.exit_status


def _history_path(arguments: argparse.Namespace) -> Path | None:
    if arguments.no_history:
        return None
    from platformdirs import user_state_path

    return user_state_path("vivace") / "chat_history"
