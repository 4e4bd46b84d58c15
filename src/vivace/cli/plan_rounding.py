"""`vivace plan quantize` and `vivace plan method`: one number on a grid, and how to quantise a model."""

import argparse
import json
from dataclasses import asdict

from vivace.cli.quantities import read_count

QUANTIZE_HELP = "what one number becomes in few bits"
METHOD_HELP = "quantise after training or while training"


def add_quantize_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `quantize`."""
    parser.add_argument("value", type=float, metavar="X", help="the number")
    parser.add_argument("--low", type=float, required=True, metavar="L", help="least weight of the layer")
    parser.add_argument("--high", type=float, required=True, metavar="H", help="largest weight of the layer")
    parser.add_argument("--bits", type=int, default=8, metavar="B", help="bits of a code (default: 8)")
    parser.add_argument("--asymmetric", action="store_true", help="with a zero point")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_quantize(arguments: argparse.Namespace) -> int:
    """Print scale, code, what is read back and the errors.

    Raises:
        ConfigError: the range is empty, or bits are out of range.
    """
    from vivace.plan.quantize import quantize_value

    found = quantize_value(
        arguments.value, arguments.low, arguments.high, arguments.bits, symmetric=not arguments.asymmetric
    )
    errors = {
        "absolute_error": found.absolute_error,
        "relative_error": found.relative_error,
        "largest_error": found.largest_error,
    }
    if arguments.json:
        print(json.dumps(asdict(found) | errors))
        return 0
    relative = "" if found.relative_error is None else f", {found.relative_error:.2%} of it"
    print(f"scale       {found.scale:.6g}, zero point {found.zero_point}")
    print(f"code        {found.code}" + (" (clipped: the value lies outside the range)" if found.clipped else ""))
    print(f"read back   {found.restored:.6g}")
    print(f"error       {found.absolute_error:.6g}{relative}; at most {found.largest_error:.6g} inside the range")
    return 0


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `method`."""
    parser.add_argument("--params", required=True, metavar="P", help="parameters of the model, such as 1.5B")
    parser.add_argument("--bits", type=int, default=4, metavar="B", help="bits that are wanted (default: 4)")
    parser.add_argument("--goal", default="quality", metavar="G", help="quality or speed (default: quality)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_method(arguments: argparse.Namespace) -> int:
    """Print the chapter's rule, what was found, and the recommendation.

    Raises:
        ConfigError: a value out of range.
    """
    from vivace.plan.method import advise_method

    advice = advise_method(read_count(arguments.params, "--params") / 1e9, arguments.bits, arguments.goal)
    if arguments.json:
        print(json.dumps(asdict(advice)))
        return 0
    plain, calibrated = advice.plain, advice.calibrated
    print(f"chapter 18.2.4   {advice.chapter}\nfound            {advice.found}\nrecommended      {advice.recommended}")
    print(
        f"expected         recovery {plain.recovery:.1%} ({plain.low:.1%} to {plain.high:.1%}) by rounding, "
        f"{calibrated.recovery:.1%} ({calibrated.low:.1%} to {calibrated.high:.1%}) calibrated"
    )
    return 0
