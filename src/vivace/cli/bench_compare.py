"""`vivace bench compare`: vivace and its peers on the same prompts, on this machine, in turns.

Each peer runs in a process and a virtual environment of its own (`compare/`). A peer that is not there, or that fails,
is listed with the reason and the others go on.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.output_files import output_file
from vivace.types.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from vivace.cli.compare.child_process import PeerProcess
    from vivace.cli.compare.peers import Peer
    from vivace.cli.compare.report import Comparison, RowFacts

HELP = "vivace and other engines on the same prompts, in turns"
DESCRIPTION = (
    "Measure vivace and other engines on the same prompts, in turns. Engines live in environments of their own below "
    "the cache folder; --install makes those that are missing, and without it they are listed as absent."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is compared, and how."""
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--model",
        metavar="M",
        help="a catalogue name, a .gguf file, or shape:NAME:FORMAT for random weights (default: smollm2-135m)",
    )
    what.add_argument(
        "--rows", metavar="LIST", help="peers, or peer:format, with commas between (default: all that are installed)"
    )
    what.add_argument("--list", action="store_true", help="show peers, formats and what is installed, and leave")
    what.add_argument("--install", action="store_true", help="install the peers that are asked for (from PyPI)")
    what.add_argument(
        "--cases", default="full", metavar="NAME", help="quick, prompts, streams, sixteen, full (the default)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=int, metavar="N", help="threads of every engine (default: the machine's cores)")
    how.add_argument("--turns", type=int, default=5, metavar="K", help="runs that count (default: %(default)s)")
    how.add_argument(
        "--quiet", type=float, default=0.1, metavar="X", help="share of the machine others may use (default: 0.1)"
    )
    how.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds to wait for such quiet (default: 0)",
    )
    how.add_argument("--retries", type=int, default=0, metavar="K", help="repeat disturbed runs (default: 0)")
    how.add_argument(
        "--quality", type=Path, metavar="TEXT", help="say how near each row is to float32 on a text, beside its speed"
    )
    how.add_argument(
        "--state",
        type=output_file,
        metavar="FILE",
        help="keep each run there; the same command goes on where it was stopped",
    )
    how.add_argument("--json", type=output_file, metavar="FILE", help="write everything as JSON")
    how.add_argument("--plot", type=output_file, metavar="FILE", help="draw a PNG (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print.

    Raises:
        ConfigError: an unknown row or case, or numbers that can never work.
        MissingExtraError: a plot is asked for and matplotlib is missing.
        VivaceError: the model cannot be loaded.
    """
    if arguments.list:
        print(_listing())
        return 0
    _check(arguments)
    comparison = _compare(arguments)
    from vivace.cli.compare.report import as_table, draw

    print(as_table(comparison))
    if arguments.json:
        arguments.json.write_text(json.dumps(comparison.as_json(), indent=1) + "\n", encoding="utf-8")
    if arguments.plot and comparison.figures:
        draw(comparison, arguments.plot)
    return 0


def require_matplotlib() -> None:
    """Fail before hours of measurement rather than after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Plots need matplotlib, which is not installed.", "Run: pip install 'vivace[bench]'."
        ) from None


def _check(arguments: argparse.Namespace) -> None:
    from vivace.cli.compare.cases import CASES

    if arguments.cases not in CASES:
        raise ConfigError(f"There are no cases {arguments.cases!r}.", f"Known are: {', '.join(CASES)}.")
    for name, least in (("turns", 1), ("threads", 1), ("retries", 0), ("patience", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}.", f"Give at least {least}.")
    if arguments.plot:
        require_matplotlib()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the comparison: a peer reading one format."""

    peer: "Peer"
    format: str

    @property
    def name(self) -> str:
        """As the report and --rows call it."""
        from vivace.cli.compare.peers import FILE

        return self.peer.name if self.format == FILE else f"{self.peer.name}:{self.format}"


def choose_rows(wanted: str | None) -> list[Row]:
    """The rows that --rows asks for; by default every peer with its first format.

    Raises:
        ConfigError: there is no such peer, or it does not read that format.
    """
    from vivace.cli.compare.peers import PEERS

    rows = []
    for word in wanted.split(",") if wanted else PEERS:
        name, _, format = word.strip().partition(":")
        if name not in PEERS:
            raise ConfigError(f"There is no peer {name!r}.", f"Known are: {', '.join(PEERS)}.")
        peer = PEERS[name]
        if format and format not in peer.formats:
            raise ConfigError(f"{name} has no format {format!r}.", f"It reads: {', '.join(peer.formats)}.")
        rows.append(Row(peer, format or peer.formats[0]))
    return rows


def _listing() -> str:
    from vivace.cli.compare.environments import PeerError, peers_folder, python_of
    from vivace.cli.compare.peers import PEERS

    lines = [f"environments are in {peers_folder()}"]
    for peer in PEERS.values():
        try:
            python_of(peer)
            state = "part of vivace" if not peer.packages else "installed"
        except PeerError:
            state = f"absent (--install takes about {peer.minutes} min)"
        lines.append(f"{peer.name.ljust(20)}{', '.join(peer.formats).ljust(20)}{state}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Text:
    """The model's own tokenizer, for every row."""

    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    question_ids: Sequence[int]
    can_speak: bool


def _compare(arguments: argparse.Namespace) -> "Comparison":
    from vivace.cli.compare.cases import CASES
    from vivace.cli.compare.machine import processor_name
    from vivace.cli.compare.peers import OURSELVES
    from vivace.cli.compare.report import Comparison
    from vivace.cli.compare.sanity import ANSWER_TOKENS
    from vivace.cli.compare.state import SavedComparison
    from vivace.cli.compare.turns import Conditions, Failures, measure

    model = _model_file(arguments.model)
    threads = arguments.threads or len(os.sched_getaffinity(0))
    conditions = Conditions(arguments.turns, arguments.quiet, arguments.patience, arguments.retries)
    machine = {"processor": processor_name(), "threads": threads, "system": platform.platform()}
    comparison = Comparison(machine, model.name, OURSELVES, asdict(conditions))
    cases, rows = CASES[arguments.cases], choose_rows(arguments.rows)
    asked = {"machine": machine, "model": model.name, "rows": [row.name for row in rows], "cases": arguments.cases}
    saved = SavedComparison(arguments.state, {**asked, "conditions": comparison.conditions})
    text = _read_text(model)
    with ExitStack() as stack:
        running = {}
        for row in rows:
            shapes = [[1, len(text.question_ids) + ANSWER_TOKENS], *([case.streams, case.length + 1] for case in cases)]
            options = {"threads": threads, "shapes": shapes}
            process = _start(row, model, options, comparison, install=arguments.install)
            if process is not None:
                stack.callback(process.close)
                running[row.name] = process
                _note_facts(row.name, process, text, comparison, saved.facts.get(row.name))
                saved.keep_facts(comparison.facts)
        if arguments.quality:
            _note_quality(running, model, arguments.quality, comparison)
            saved.keep_facts(comparison.facts)
        running = {name: process for name, process in running.items() if name not in comparison.absent}
        failures = Failures()
        comparison.figures = measure(
            running, cases, conditions, encode=text.encode, failures=failures, progress=_say, kept=saved
        )
        comparison.absent.update(failures.reasons)
        _note_memory(running, comparison)
        saved.keep_facts(comparison.facts)
    return comparison


def _model_file(wanted: str | None) -> Path:
    from vivace.cli.compare.shapes import is_shape, shape_model
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL

    if wanted is not None and is_shape(wanted):
        return shape_model(wanted, resolve(DEFAULT_MODEL))
    return resolve(wanted or DEFAULT_MODEL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read_text(model: Path) -> _Text:
    from vivace.cli.compare.sanity import QUESTION
    from vivace.cli.compare.shapes import RANDOM
    from vivace.files.open import open_model
    from vivace.text.build import build_template, build_tokenizer
    from vivace.types.request import ChatMessage

    loaded = open_model(model)
    vocabulary = loaded.vocabulary
    if vocabulary is None:
        raise ConfigError(f"{model} has no tokenizer.", "Use a model file that comes with one.")
    tokenizer = build_tokenizer(vocabulary)
    question = build_template(vocabulary, tokenizer).encode_chat([ChatMessage("user", QUESTION)])
    loaded.close()
    return _Text(tokenizer.encode, tokenizer.decode, question, can_speak=not model.name.startswith(RANDOM))


def _start(
    row: Row, model: Path, options: Mapping[str, object], comparison: "Comparison", *, install: bool
) -> "PeerProcess | None":
    """A row's process; None where it cannot be had, with the reason in `comparison.absent`."""
    from vivace.cli.compare import environments
    from vivace.cli.compare.child_process import PeerProcess
    from vivace.cli.compare.formats import model_in

    try:
        if install:
            _say(f"{row.name}: installing unless it is there (about {row.peer.minutes} min)")
            environments.install(row.peer)
        path = model_in(row.format, model, environments.python_of(row.peer))
        return PeerProcess(row.peer, row.name, {**options, "model": str(path)})
    except environments.PeerError as error:
        comparison.absent[row.name] = str(error)
        return None


def _note_facts(
    name: str, process: "PeerProcess", text: _Text, comparison: "Comparison", known: "RowFacts | None"
) -> None:
    """Time to the first token, and whether the row makes sense; as an earlier start found it if there was one."""
    from vivace.cli.compare.environments import PeerError
    from vivace.cli.compare.report import RowFacts
    from vivace.cli.compare.sanity import ask

    try:
        start_s = process.first_answer_s(text.question_ids)
        answer = ask(process, text.question_ids, text.decode, can_speak=text.can_speak)
    except PeerError as error:
        comparison.absent[name] = str(error)
        return
    if known is not None:
        comparison.facts[name] = known
        return
    comparison.facts[name] = RowFacts(process.engine, start_s, process.load_s, 0, answer)
    _say(f"{name}: first token after {start_s:.2f} s; says {answer.text!r}")


def _note_quality(running: Mapping[str, "PeerProcess"], model: Path, text: Path, comparison: "Comparison") -> None:
    from vivace.cli.compare.environments import PeerError
    from vivace.cli.compare.quality import QualityCheck

    comparison.conditions["quality_text"] = text.name
    unknown = {
        name: process
        for name, process in running.items()
        if name not in comparison.absent and comparison.facts[name].quality is None
    }
    if not unknown:
        return
    _say(f"reading {text.name} with the oracle, for the quality of the rows")
    check = QualityCheck(model, text)
    for name, process in unknown.items():
        try:
            comparison.facts[name] = replace(comparison.facts[name], quality=check.of(process))
        except PeerError as error:
            comparison.absent[name] = str(error)


def _note_memory(running: Mapping[str, "PeerProcess"], comparison: "Comparison") -> None:
    for name, process in running.items():
        if name not in comparison.absent:
            facts = comparison.facts[name]
            comparison.facts[name] = replace(facts, peak_bytes=max(facts.peak_bytes, process.peak_memory_bytes()))
