"""Options that name text to calibrate on and text as in use, of `vivace compress` and its doctor.

Logs go in only with consent, and without personal data and secrets, as the stream's filter knows them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.compress.samples import CalibrationText


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Declare both kinds of text, as files and as logs."""
    for option, metavar, what in (
        (
            "--calibrate-on",
            "PATH",
            "text files, JSONL files or folders to calibrate on (default: the model writes its own text)",
        ),
        (
            "--from-logs",
            "FILE",
            "request logs (JSON lines) to calibrate on, redacted; needs --logs-consented",
        ),
        (
            "--like",
            "PATH",
            "text as in use: the doctor looks first, and a one-sided set is drawn by its kinds of text",
        ),
        ("--like-logs", "FILE", "the same as request logs: live traffic; needs --logs-consented"),
    ):
        parser.add_argument(option, type=Path, action="append", metavar=metavar, help=what)
    parser.add_argument(
        "--logs-consented", action="store_true", help="the people in the logs agreed that their words are used so"
    )


def calibration_text(arguments: argparse.Namespace) -> "CalibrationText":
    """What is calibrated on; empty when nothing is named.

    Raises:
        ConfigError: logs without consent, or text as in use without any to compare with it.
    """
    text = _text(arguments.calibrate_on, arguments.from_logs, "--from-logs", consented=arguments.logs_consented)
    if (arguments.like or arguments.like_logs) and not (text.paths or text.logs):
        raise ConfigError("--like needs text to compare.", "Give it with --calibrate-on, or --from-logs.")
    return text


def text_in_use(arguments: argparse.Namespace) -> "CalibrationText | None":
    """What the model is used on; None when nothing is named.

    Raises:
        ConfigError: logs without consent.
    """
    text = _text(arguments.like, arguments.like_logs, "--like-logs", consented=arguments.logs_consented)
    return text if text.paths or text.logs else None


def _text(
    paths: Sequence[Path] | None, logs: Sequence[Path] | None, option: str, *, consented: bool
) -> "CalibrationText":
    from vivace.compress.samples import CalibrationText
    from vivace.stream.safety.rows import GROUPS
    from vivace.stream.safety.screen import SafetyConfig, SafetyRules

    if not logs:
        return CalibrationText(tuple(paths or ()))
    if not consented:
        raise ConfigError(f"{option} uses people's words.", "Add --logs-consented when they agreed to it.")
    rules = SafetyRules(SafetyConfig(patterns=tuple(GROUPS), action="replace"))
    return CalibrationText(tuple(paths or ()), logs=tuple(logs), redact=lambda said: rules.screened(said)[0])
