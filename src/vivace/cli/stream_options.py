"""Options of `vivace serve` about streams: where they are kept, what a disconnect means, what may not be said."""

import argparse
import logging
from pathlib import Path
from typing import Any

from vivace.types.errors import ConfigError, RequestError


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("streams (docs/streaming.md)")
    group.add_argument(
        "--stream-file", type=Path, metavar="FILE", help="keep streams here, so that they go on after the server died"
    )
    group.add_argument(
        "--on-disconnect",
        default="cancel",
        metavar="WHAT",
        help="work whose reader has left: cancel, keep, or seconds to go on (default: %(default)s)",
    )
    group.add_argument("--blocked-terms", type=Path, metavar="FILE", help="words that may not be said, one a line")
    group.add_argument(
        "--block", action="append", default=[], metavar="KIND", help="personal, secrets or one kind of them; repeatable"
    )
    group.add_argument(
        "--block-action",
        default="mask",
        choices=("stop", "mask", "replace"),
        help="what is done about what may not be said (default: %(default)s)",
    )
    group.add_argument("--stream-log", action="store_true", help="write a line to standard error for each token sent")
    group.add_argument("--check-input", action="store_true", help="refuse requests that hold what may not be said")


def stream_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ServerConfig that the options choose.

    Raises:
        ConfigError: an option that can never work, or a file that cannot be read.
    """
    from vivace.stream.options import parse_disconnect_policy
    from vivace.stream.safety.screen import SafetyConfig, SafetyRules

    if arguments.stream_log:
        logging.getLogger("vivace.stream").setLevel(logging.INFO)
    given = arguments.on_disconnect
    try:
        policy = parse_disconnect_policy(float(given) if given.replace(".", "", 1).isdecimal() else given)
    except RequestError as error:
        raise ConfigError(f"--on-disconnect is {given!r}.", error.mend) from None
    safety = SafetyConfig(
        blocked_terms=_terms(arguments.blocked_terms),
        patterns=tuple(arguments.block),
        action=arguments.block_action,
        check_input=arguments.check_input,
    )
    SafetyRules(safety)  # refused now, not when the server is built
    return {"stream_file": arguments.stream_file, "on_disconnect": policy, "safety": safety}


def _terms(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Name a text file in UTF-8, one term a line.") from None
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
