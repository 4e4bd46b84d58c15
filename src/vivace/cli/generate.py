"""`vivace generate`: one prompt in, one answer out, and nothing but the answer on standard output."""

import argparse
import sys
from contextlib import closing

from vivace.cli.model_options import add_model_options, open_service
from vivace.cli.sampling_options import add_sampling_options, sampling_parameters
from vivace.cli.screen import AnswerWriter
from vivace.types.errors import RequestError
from vivace.types.request import ChatMessage

NAME = "generate"
HELP = "answer one prompt on standard output"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the prompt and the options."""
    parser.add_argument("prompt", metavar="PROMPT", help="what to answer; - reads standard input")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is, without the chat template")
    parser.add_argument("--stats", action="store_true", help="print speed and token counts on standard error")
    add_sampling_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer and write.

    Raises:
        VivaceError: no such model, a wrong option, or a prompt that does not fit.
    """
    if arguments.raw and arguments.system is not None:
        raise RequestError("--system and --raw exclude each other.", "Write the whole text into the raw prompt.")
    prompt = _read_prompt(arguments.prompt)
    with closing(open_service(arguments)) as service:
        ids = service.encode(prompt) if arguments.raw else service.encode_chat(_messages(prompt, arguments.system))
        parameters = sampling_parameters(arguments, service.context_length - len(ids))
        request = service.admit(ids, parameters, chat=not arguments.raw)
        writer = AnswerWriter()
        try:
            writer.write(service.iterate(request))
        finally:
            writer.end_line()
        shown = writer.shown()
    if shown.finish_reason == "length" and arguments.max_tokens is None:
        limit = request.stopping.max_tokens
        print(f"vivace: note: the answer was cut at {limit} tokens; --max-tokens allows more.", file=sys.stderr)
    if arguments.stats:
        print(shown.figures(), file=sys.stderr)
    return 0


def _messages(prompt: str, system: str | None) -> list[ChatMessage]:
    before = [] if system is None else [ChatMessage("system", system)]
    return [*before, ChatMessage("user", prompt)]


def _read_prompt(argument: str) -> str:
    """The prompt as text; arguments that are not UTF-8 reach Python with surrogates in them."""
    data = sys.stdin.buffer.read() if argument == "-" else argument.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"The prompt is not UTF-8 (byte {error.start}).", "Convert it to UTF-8.") from None
