"""`vivace evaluate ab`: a page on which people choose between two models' answers without knowing which is which."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.evaluate.votes import VoteStore

NAME = "evaluate ab"
HELP = "let people choose between the answers of two models, blind"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models, where votes are kept, and the page."""
    parser.add_argument("first", metavar="MODEL_A", help="a catalogue name, a .gguf file or a Hugging Face folder")
    parser.add_argument("second", metavar="MODEL_B", help="the other one")
    parser.add_argument(
        "--votes", type=Path, default=Path("votes.sqlite"), metavar="FILE", help="kept here (default: %(default)s)"
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="questions to offer, one a line (default: a dozen)"
    )
    parser.add_argument("--max-tokens", type=int, default=200, metavar="N", help="of an answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="of both (default: 0, greedy)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8010, help="port of the page, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--results", action="store_true", help="print what the votes say, and end")
    parser.add_argument("--json", action="store_true", help="with --results: print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or print the results.

    Raises:
        VivaceError: a model, the prompts or the votes cannot be opened.
    """
    from vivace.evaluate.votes import VoteStore
    from vivace.files.catalogue import resolve

    if arguments.first == arguments.second:
        raise ConfigError("Both models are the same.", "Name two.")
    if arguments.max_tokens < 1 or not 0 <= arguments.temperature <= 2:
        raise ConfigError("--max-tokens or --temperature is out of range.", "At least 1, and 0 to 2.")
    prompts = _prompts(arguments.prompts)
    if arguments.results:
        if not arguments.votes.is_file():
            raise ConfigError(f"There are no votes at {arguments.votes}.", "Name their file with --votes.")
        print(_results(VoteStore(arguments.votes), arguments.first, arguments.second, as_json=arguments.json))
        return 0
    paths = {name: resolve(name) for name in (arguments.first, arguments.second)}
    _serve(arguments, {name: str(path) for name, path in paths.items()}, VoteStore(arguments.votes), prompts)
    return 0


def _serve(arguments: argparse.Namespace, paths: dict[str, str], store: "VoteStore", prompts: tuple[str, ...]) -> None:
    import uvicorn

    from vivace.engine.build import EngineConfig, build_service
    from vivace.evaluate.ab_app import AbSettings, BlindComparison
    from vivace.server.run import bind

    services = {}
    listener = bind(arguments.host, arguments.port)  # a port that is taken is told before models are loaded
    try:
        for name, path in paths.items():
            services[name] = build_service(path, EngineConfig(num_threads=arguments.threads))
        sampling = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
        comparison = BlindComparison(services, store, AbSettings(sampling, prompts))
        server = uvicorn.Server(uvicorn.Config(comparison.app(), log_level="warning"))
        print(f"http://{arguments.host}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        server.run(sockets=[listener])
    finally:
        listener.close()
        for service in services.values():
            service.close()
        store.close()


def _prompts(path: Path | None) -> tuple[str, ...]:
    from vivace.evaluate.generation import PROMPTS

    if path is None:
        return PROMPTS
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The prompts {path} cannot be read: {error}.", "Give a UTF-8 text, a line a prompt."
        ) from None
    if not lines:
        raise ConfigError(f"{path} has no prompts.", "Write one a line.")
    return lines


def _results(store: "VoteStore", first: str, second: str, *, as_json: bool) -> str:
    from dataclasses import asdict

    from vivace.evaluate.votes import ratings, standing

    votes = store.all()
    found, rows = standing(votes, first, second), ratings(votes)
    if as_json:
        return json.dumps({"standing": asdict(found), "ratings": [asdict(row) for row in rows]})
    if found.win_rate is None:
        lines = ["no votes on these two yet"]
    else:
        lines = [
            f"{first} beats {second} in {found.win_rate:.1%} of votes (95 %: {found.low:.1%} to {found.high:.1%})",
            f"{found.wins} won, {found.losses} lost, {found.ties} ties, p = {found.p_value:.3f}",
        ]
    return "\n".join(
        [
            *lines,
            *(f"{row.elo:6.0f} ({row.low:.0f} to {row.high:.0f})  {row.model}, {row.num_votes} votes" for row in rows),
        ]
    )
