"""Options that say how an answer is drawn and when it ends, shared by `generate` and `chat`."""

import argparse

DEFAULT_TEMPERATURE = 0.6
DEFAULT_TOP_P = 0.95
DEFAULT_MAX_TOKENS = 1024


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; ranges are checked with the request."""
    group = parser.add_argument_group("how the answer is drawn")
    group.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        default=DEFAULT_TEMPERATURE,
        help="0 always takes the likeliest token, higher is more varied (default: %(default)s)",
    )
    group.add_argument(
        "--max-tokens", type=int, metavar="N", help=f"longest answer, in tokens (default: {DEFAULT_MAX_TOKENS})"
    )
    group.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    group.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        default=DEFAULT_TOP_P,
        help="draw from the likeliest tokens that hold this probability together (default: %(default)s)",
    )
    group.add_argument(
        "--min-p", type=float, metavar="P", help="leave out tokens less likely than P times the likeliest one"
    )
    group.add_argument("--repetition-penalty", type=float, metavar="R", help="above 1 discourages what was said")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same answer")
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end the answer before this text; may be given several times"
    )


def sampling_parameters(arguments: argparse.Namespace, context_left: int | None = None) -> dict[str, object]:
    """The parameters as the engine's admission takes them.

    Args:
        context_left: tokens that fit after the prompt; lowers the default length of an answer, never a chosen one.
    """
    max_tokens = arguments.max_tokens
    if max_tokens is None:
        max_tokens = DEFAULT_MAX_TOKENS if context_left is None else max(1, min(DEFAULT_MAX_TOKENS, context_left))
    return {
        "temperature": arguments.temperature,
        "max_tokens": max_tokens,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "min_p": arguments.min_p,
        "repetition_penalty": arguments.repetition_penalty,
        "seed": arguments.seed,
        "stop": arguments.stop,
    }
