"""`vivace compress doctor`: does calibration text look like what a model is used on, before hours are spent on it."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from vivace.cli.text_options import add_text_options, calibration_text, text_in_use
from vivace.cli.work_progress import WorkProgress
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.compress.doctor import Diagnosis
    from vivace.compress.estimate import Estimate
    from vivace.compress.samples import CalibrationText

NAME = "compress doctor"
HELP = "check calibration text against what a model is used on"
ONE_SIDED_STATUS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the model and the two sets of text."""
    parser.add_argument("model", metavar="MODEL", help="a catalogue name, a .gguf file or a Hugging Face folder")
    add_text_options(parser)
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="windows of either (default: 16)")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="tokens of a window (default: 256)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Diagnose and print; status 3 for a one-sided set.

    Raises:
        VivaceError: the model or a text can never work.
    """
    sizes = arguments.samples, arguments.tokens
    text, in_use = calibration_text(arguments), text_in_use(arguments)
    if in_use is None:
        raise ConfigError("The doctor compares with text as in use.", "Give it with --like, or --like-logs.")
    estimate = foretell_doctor(arguments.model, text, in_use, *sizes)
    print(f"vivace: {estimate.sentence()}", file=sys.stderr, flush=True)
    found = examine(arguments.model, text, in_use, *sizes)
    print(json.dumps(asdict(found) | {"is_good": found.is_good}) if arguments.json else _text(found))
    return 0 if found.is_good else ONE_SIDED_STATUS


def examine(
    model_name: str, text: "CalibrationText", in_use: "CalibrationText", samples: int = 16, tokens: int = 256
) -> "Diagnosis":
    """Draw windows from both texts and let the doctor look at them.

    Raises:
        VivaceError: the model or a text can never work.
    """
    from vivace.compress.calibration_text import draw_windows
    from vivace.compress.doctor import diagnose
    from vivace.compress.recipe import CalibrationSettings
    from vivace.files.catalogue import resolve
    from vivace.files.open import open_model
    from vivace.text.build import build_tokenizer

    drawn = CalibrationSettings(samples=samples, tokens=tokens)
    model = open_model(resolve(model_name))
    try:
        if model.vocabulary is None:
            raise ConfigError(f"{model.path} has no vocabulary to read text with.", "Use a whole model file.")
        tokenizer = build_tokenizer(model.vocabulary)
        windows, reference = (draw_windows(of.read(), tokenizer, drawn, None) for of in (text, in_use))
        with WorkProgress() as progress:
            return diagnose(
                model.spec, model.weights, tokenizer, calibration=windows, reference=reference, report=progress
            )
    finally:
        model.close()


def foretell_doctor(
    model_name: str, text: "CalibrationText", in_use: "CalibrationText", samples: int = 16, tokens: int = 256
) -> "Estimate":
    """What `examine` of the same will take.

    Raises:
        VivaceError: the model or a text can never work.
    """
    from vivace.compress.estimate_search import estimate_doctor
    from vivace.compress.recipe import CalibrationSettings
    from vivace.files.catalogue import resolve

    return estimate_doctor(resolve(model_name), text, in_use, CalibrationSettings(samples=samples, tokens=tokens))


def _text(found: "Diagnosis") -> str:
    kinds = ", ".join(f"{kind.kind} {kind.calibration:.0%} (in use {kind.reference:.0%})" for kind in found.kinds)
    lines = [
        f"kinds of text    {kinds}",
        f"token coverage   {found.token_coverage:.0%} of what traffic itself covers",
        f"cost             {found.regret:+.0%} error on traffic, against calibration on as much traffic",
        f"range overlap    {found.range_overlap:.0%} of traffic's own; {found.narrow_channels:.0%} of channels go on",
        f"two-sample test  distance {found.distance:.3f}, p = {found.p_value:.3f}",
        *(f"complaint        {sentence}" for sentence in found.complaints),
        "verdict          " + ("good" if found.is_good else "one-sided"),
    ]
    if not found.is_good and found.shares:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in found.shares.items())
        lines.append(f"re-weight        {shares}; `vivace compress --like` draws so")
    return "\n".join(lines)
