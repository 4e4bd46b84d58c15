"""`vivace serve`: the OpenAI-style API and the chat page."""

import argparse
import logging
import sys
from pathlib import Path

from vivace.cli.load_options import add_load_options, load_config, stand_in_loader
from vivace.cli.model_options import add_model_options, open_service
from vivace.cli.queue_options import add_queue_options
from vivace.cli.speculation_options import add_speculation_options
from vivace.cli.stream_options import add_stream_options, add_transport_options, stream_settings, transport_settings
from vivace.schedule.orders.config import ORDER_NAMES

LONG_CHAT_NAMES = ("reject", "truncate", "window", "adaptive")  # rows of engine/long_chat.py
NAME = "serve"
EVICTION_NAMES = ("lru", "lfu", "cost")  # rows of cache/eviction.py, which help need not load
HELP = "serve the chat page and the OpenAI-style API"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s, for this machine)")
    group.add_argument("--port", type=int, default=8000, help="port, 0 takes a free one (default: %(default)s)")
    group.add_argument("--api-key", metavar="KEY", help="ask API clients for this key")
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin use the API; may be given several times, * means any",
    )
    group.add_argument(
        "--drain",
        type=int,
        default=10,
        metavar="S",
        help="seconds for answers at the end (default: %(default)s)",
    )
    group.add_argument(
        "--order",
        default="fcfs",
        choices=ORDER_NAMES,
        metavar="NAME",
        help=f"who is served first: {', '.join(ORDER_NAMES)} (default: %(default)s)",
    )
    group.add_argument(
        "--eviction",
        default="lru",
        choices=EVICTION_NAMES,
        metavar="NAME",
        help=f"what the prefix cache forgets first: {', '.join(EVICTION_NAMES)} (default: %(default)s)",
    )
    group.add_argument(
        "--long-chat",
        default="reject",
        choices=LONG_CHAT_NAMES,
        metavar="NAME",
        help="chats that outgrow the context: reject answers with an error, truncate drops old turns "
        "(default: %(default)s)",
    )
    group.add_argument("--access-log", action="store_true", help="write one line a request to standard error")
    _add_tier_options(group)
    add_speculation_options(parser)
    add_queue_options(parser)
    add_transport_options(parser)
    add_stream_options(parser)
    add_load_options(parser)
    add_model_options(parser)


def _add_tier_options(group: "argparse._ArgumentGroup") -> None:
    """Where keys and values go that the engine's own pool forgets."""
    group.add_argument(
        "--kv-host-memory",
        type=int,
        default=0,
        metavar="MIB",
        help="memory for keys and values that the engine's own pool forgets (default: %(default)s, none)",
    )
    group.add_argument(
        "--kv-folder",
        type=Path,
        metavar="DIR",
        help="keep keys and values here too, and let conversations be saved (default: nothing outlives the server)",
    )
    group.add_argument(
        "--kv-disk",
        type=int,
        default=4096,
        metavar="MIB",
        help="most that --kv-folder may hold (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        VivaceError: the port is taken, or the model cannot be loaded.
    """
    from vivace.server.config import ServerConfig
    from vivace.server.run import serve

    _log_to_stderr(arguments.access_log)
    load = load_config(arguments)
    config = ServerConfig(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        cors_origins=tuple(arguments.cors_origin),
        drain_s=arguments.drain,
        load=load,
        transport=transport_settings(arguments),
        **stream_settings(arguments),
    )
    serve(config, lambda: open_service(arguments), _announce, stand_in_loader(arguments, load))
    return 0


def _announce(url: str) -> None:
    print(f"vivace: the chat page is at {url} (Ctrl-C stops the server)", flush=True)


def _log_to_stderr(access_log: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="vivace: %(levelname)s: %(name)s: %(message)s")
    logging.getLogger("vivace.access").setLevel(logging.INFO if access_log else logging.WARNING)
