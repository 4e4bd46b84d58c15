"""`vivace bench`: measure on this machine. Each kind is a module with HELP, DESCRIPTION, `add_arguments` and `run`."""

import argparse

from vivace.cli import bench_compare, bench_latency, bench_raw, bench_roofline, bench_serve

NAME = "bench"
HELP = "measure speed on this machine"

_KINDS = {
    "raw": bench_raw,
    "latency": bench_latency,
    "roofline": bench_roofline,
    "compare": bench_compare,
    "serve": bench_serve,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the kinds of measurement."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    for name, kind in _KINDS.items():
        subparser = kinds.add_parser(name, help=kind.HELP, description=kind.DESCRIPTION)
        kind.add_arguments(subparser)
        subparser.set_defaults(measure=kind.run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    status: int = arguments.measure(arguments)
    return status
