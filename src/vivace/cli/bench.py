"""`vivace bench`: measure on this machine, in this process."""

import argparse

from vivace.cli import bench_raw

NAME = "bench"
HELP = "measure speed on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the kinds of measurement."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    raw = kinds.add_parser("raw", help=bench_raw.HELP, description=bench_raw.DESCRIPTION)
    bench_raw.add_arguments(raw)
    raw.set_defaults(measure=bench_raw.run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    status: int = arguments.measure(arguments)
    return status
