"""Options of guessing ahead."""

import argparse

from vivace.speculate.proposers import CHOICES

DEFAULT_SPECULATION = "off"


def add_speculation_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; they never change a text."""
    group = parser.add_argument_group("speculation")
    group.add_argument(
        "--speculate",
        default=DEFAULT_SPECULATION,
        choices=tuple(CHOICES),
        metavar="NAME",
        help=f"who guesses tokens ahead: {', '.join(CHOICES)}; never changes the text (default: %(default)s)",
    )
    group.add_argument(
        "--draft-model",
        metavar="M",
        help="a smaller model of the same vocabulary that guesses, with --speculate draft or auto",
    )
    group.add_argument(
        "--exit-layer",
        type=int,
        metavar="N",
        help="guess with the model's own first N layers, with --speculate self or auto (default for self: measured)",
    )
    group.add_argument(
        "--max-drafts", type=int, default=15, metavar="K", help="most guesses of a step, 1 to 16 (default: %(default)s)"
    )
