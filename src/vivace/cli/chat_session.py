"""One running chat: a service, a conversation, and the commands that start with a slash."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.conversation import Conversation
from vivace.cli.sampling_options import sampling_parameters
from vivace.cli.screen import AnswerWriter, Shown
from vivace.types.errors import RequestError

if TYPE_CHECKING:
    from vivace.engine.service import ModelService


class LeaveChat(Exception):  # noqa: N818 - a wish, not an error
    """The user wants to leave."""


class ChatSession:
    """Answers messages and carries out commands. What it says besides answers goes to standard error.

    Args:
        service: the model.
        arguments: with the sampling options.
        conversation: what was said so far.
    """

    def __init__(self, service: "ModelService", arguments: argparse.Namespace, conversation: Conversation) -> None:
        self._service = service
        self._arguments = arguments
        self.conversation = conversation
        self.last: Shown | None = None

    def handle(self, line: str) -> None:
        """Answer a message, or carry out a command.

        Raises:
            LeaveChat: the command was to leave.
            VivaceError: the message does not fit, or the command cannot be carried out.
        """
        if line.startswith("/"):
            run_command(self, line)
        elif line.strip():
            self._answer(line)

    def _answer(self, question: str) -> None:
        ids = self._service.encode_chat(self.conversation.asking(question))
        context_left = self._service.context_length - len(ids)
        request = self._service.admit(ids, sampling_parameters(self._arguments, context_left), chat=True)
        writer = AnswerWriter()
        chunks = self._service.iterate(request)
        stopped = False
        try:
            writer.write(chunks)
        except KeyboardInterrupt:
            stopped = True
        finally:
            self._service.cancel(request.request_id)
            writer.end_line()
            self.last = writer.shown()
            self.conversation.add(question, self.last.text)
        if stopped:
            say("(stopped)")
        elif self.last.finish_reason == "length":
            say("(cut at the longest length; --max-tokens allows more)")

    def context_use(self) -> str:
        """How full the context is."""
        used = len(self._service.encode_chat(self.conversation.asking("")))
        return f"{used} of {self._service.context_length} tokens of context in use"


def say(text: str) -> None:
    """Tell the user something that is no part of an answer."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command: its argument as help shows it, what it does, and the function that does it."""

    argument: str
    help: str
    run: Callable[[ChatSession, str], None]


def _help(session: ChatSession, argument: str) -> None:
    for name, command in COMMANDS.items():
        say(f"{f'/{name} {command.argument}'.ljust(16)}{command.help}")
    say("Enter sends; Alt-Enter or a backslash at the end starts a new line; Ctrl-C stops an answer; Ctrl-D leaves.")


def _system(session: ChatSession, argument: str) -> None:
    session.conversation.system = argument or None
    say("The system prompt is set." if argument else "The system prompt is gone.")


def _reset(session: ChatSession, argument: str) -> None:
    session.conversation.reset()
    say("The conversation starts afresh.")


def _save(session: ChatSession, argument: str) -> None:
    if not argument:
        raise RequestError("/save needs a file name.", "For example: /save talk.md")
    path = Path(argument).expanduser()
    session.conversation.save(path)
    say(f"{session.conversation.num_turns} turns saved in {path}")


def _stats(session: ChatSession, argument: str) -> None:
    say("Nothing was answered yet." if session.last is None else f"last answer: {session.last.figures()}")
    say(session.context_use())


def _exit(session: ChatSession, argument: str) -> None:
    raise LeaveChat


COMMANDS = {
    "help": ChatCommand("", "show this", _help),
    "system": ChatCommand("TEXT", "set the system prompt; without TEXT remove it", _system),
    "reset": ChatCommand("", "forget the conversation, keep the system prompt", _reset),
    "save": ChatCommand("FILE", "write the conversation to FILE (.json, else Markdown)", _save),
    "stats": ChatCommand("", "speed of the last answer and how full the context is", _stats),
    "exit": ChatCommand("", "leave", _exit),
}


def run_command(session: ChatSession, line: str) -> None:
    """Carry out a line that starts with a slash.

    Raises:
        LeaveChat: the command was to leave.
        VivaceError: there is no such command, or it cannot be carried out.
    """
    name, _, argument = line[1:].partition(" ")
    command = COMMANDS.get(name.strip())
    if command is None:
        raise RequestError(f"There is no command /{name}.", "/help lists them.")
    command.run(session, argument.strip())
