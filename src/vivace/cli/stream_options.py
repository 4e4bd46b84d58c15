"""Options of `vivace serve` about streams: where they are kept, what a disconnect means, what may not be said."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.types.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from vivace.server.transport import TransportConfig
    from vivace.stream.shared_store import StoreConfig

FLUSH_NAMES = ("token", "word", "sentence")  # rows of stream/flush.py and stream/pacing.py, which help need not load
PACE_NAMES = ("off", "reader")


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("streams (docs/streaming.md)")
    group.add_argument(
        "--stream-file", type=Path, metavar="FILE", help="keep streams here, so that they go on after the server died"
    )
    group.add_argument(
        "--stream-store",
        metavar="URL",
        help="share streams with other servers through this Redis, as redis://HOST:PORT/DB (needs the extra redis)",
    )
    group.add_argument(
        "--stream-lease",
        type=float,
        default=5.0,
        metavar="S",
        help="another server takes streams over when theirs was silent for so long (default: %(default)s)",
    )
    group.add_argument(
        "--on-disconnect",
        default="cancel",
        metavar="WHAT",
        help="work whose reader has left: cancel, keep, or seconds to go on (default: %(default)s)",
    )
    group.add_argument(
        "--flush", default="token", choices=FLUSH_NAMES, help="where text may be cut for sending (default: %(default)s)"
    )
    group.add_argument(
        "--soft-timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="readers are warned when no token came for so long, 0: never (default: %(default)s)",
    )
    group.add_argument(
        "--hard-timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="an answer ends, to be continued, when no token came for so long, 0: never (default: %(default)s)",
    )
    group.add_argument("--coalesce", action="store_true", help="send tokens of a burst together: 10 ms, or 5 tokens")
    group.add_argument(
        "--pace", default="off", choices=PACE_NAMES, help="how fast text is shown (default: %(default)s, as it comes)"
    )
    _add_safety_options(group)
    group.add_argument(
        "--stream-log",
        nargs="?",
        type=float,
        const=1.0,
        metavar="SHARE",
        help="write a line to standard error for each token sent, of this share of the streams (default: of all)",
    )


def _add_safety_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--blocked-terms", type=Path, metavar="FILE", help="words that may not be said, one a line")
    group.add_argument(
        "--block", action="append", default=[], metavar="KIND", help="personal, secrets or one kind of them; repeatable"
    )
    group.add_argument(
        "--block-action",
        default="mask",
        choices=("stop", "mask", "replace", "regenerate"),
        help="what is done about what may not be said (default: %(default)s)",
    )
    group.add_argument(
        "--block-replacement",
        default="[removed]",
        metavar="TEXT",
        help="what replace puts there; begins and ends with a sign that no blocked term holds (default: %(default)s)",
    )
    group.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="KIND=TARGET[,...]",
        help="ask classifier, token_classifier, judge or external about what is said; repeatable (docs/streaming.md)",
    )
    group.add_argument("--check-input", action="store_true", help="refuse requests that hold what may not be said")


def add_transport_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options about what lies below HTTP."""
    group = parser.add_argument_group("transport")
    group.add_argument("--http2", action="store_true", help="also speak HTTP/2 (needs the extra http2)")
    group.add_argument("--tls-certificate", type=Path, metavar="FILE", help="speak TLS with this certificate (PEM)")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, where it is in a file of its own")
    _add_network_options(group)


def _add_network_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--poor-rtt",
        type=float,
        default=300,
        metavar="MS",
        help="round trips above it make a reader's network a poor one (default: %(default)s)",
    )
    group.add_argument(
        "--poor-wait",
        type=float,
        default=200,
        metavar="MS",
        help="so do sends that wait longer than this for it (default: %(default)s)",
    )
    group.add_argument(
        "--poor-send-every",
        type=float,
        default=250,
        metavar="MS",
        help="what comes within this goes together on a poor network, 0: never (default: %(default)s)",
    )


def transport_settings(arguments: argparse.Namespace) -> "TransportConfig":
    """What the options choose.

    Raises:
        ConfigError: a key without a certificate, or a number out of range.
    """
    from vivace.server.transport import TransportConfig
    from vivace.stream.network import NetworkConfig

    if arguments.tls_key is not None and arguments.tls_certificate is None:
        raise ConfigError("--tls-key is given without a certificate.", "Add --tls-certificate.")
    network = NetworkConfig(
        poor_rtt_s=arguments.poor_rtt / 1e3,
        poor_wait_s=arguments.poor_wait / 1e3,
        send_every_s=arguments.poor_send_every / 1e3,
    )
    return TransportConfig(arguments.http2, arguments.tls_certificate, arguments.tls_key, network)


def stream_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ServerConfig that the options choose.

    Raises:
        ConfigError: an option that can never work, or a file that cannot be read.
    """
    from vivace.stream.options import RunOptions, parse_disconnect_policy
    from vivace.stream.safety.check_option import parse_check
    from vivace.stream.safety.screen import SafetyConfig, SafetyRules

    share = arguments.stream_log
    if share is not None and not 0 <= share <= 1:
        raise ConfigError(f"--stream-log is {share}.", "Give a share of the streams, 0 to 1.")
    if share:
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
        replacement=arguments.block_replacement,
        check_input=arguments.check_input,
        checks=tuple(map(parse_check, arguments.check)),
    )
    SafetyRules(safety)  # refused now, not when the server is built
    return {
        "store": _store(arguments),
        "streams": RunOptions(
            policy,
            arguments.flush,
            arguments.coalesce,
            arguments.pace,
            soft_timeout_s=_timeout("--soft-timeout", arguments.soft_timeout),
            hard_timeout_s=_timeout("--hard-timeout", arguments.hard_timeout),
        ),
        "safety": safety,
        "log_share": 1.0 if share is None else share,
    }


def _timeout(option: str, given: float) -> float | None:
    if not 0 <= given <= 86_400:
        raise ConfigError(f"{option} is {given:g}.", "Give seconds up to 86400; 0 means never.")
    return given or None


def _store(arguments: argparse.Namespace) -> "StoreConfig":
    """Where streams are kept; the URL may stand in the environment, where it is not seen by others."""
    from vivace.stream.shared_store import StoreConfig

    url = arguments.stream_store or os.environ.get("VIVACE_STREAM_STORE")
    return StoreConfig(arguments.stream_file, url, arguments.stream_lease)


def _terms(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Name a text file in UTF-8, one term a line.") from None
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
