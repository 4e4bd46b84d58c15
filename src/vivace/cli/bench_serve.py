"""`vivace bench serve`: chats through HTTP, vivace's server and others', in turns.

Every turn sends the same number of chats at once, each with a prompt of its own, and reads the streams to their end.
Servers run one at a time: one that idles may still spin on a core.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.output_files import output_file
from vivace.types.errors import ConfigError, VivaceError

if TYPE_CHECKING:
    from vivace.cli.compare.servers import Load

HELP = "chats through HTTP: throughput and time to the first token, beside other servers"
DESCRIPTION = (
    "Send chats to servers, all at once, and print tokens a second, the time to the first token and what the HTTP side "
    "took of the machine. Other servers are built or installed below the cache folder with --install."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is sent, and to whom."""
    group = parser.add_argument_group("measurement")
    group.add_argument("--model", metavar="M", help="a catalogue name or a .gguf file (default: smollm2-135m)")
    group.add_argument("--rows", default="vivace", metavar="LIST", help="servers, with commas (default: %(default)s)")
    group.add_argument("--install", action="store_true", help="build or install the servers that are asked for")
    group.add_argument("--chats", type=int, default=16, metavar="N", help="at once (default: %(default)s)")
    group.add_argument("--prompt", type=int, default=240, metavar="N", help="tokens each reads (default: %(default)s)")
    group.add_argument("--answer", type=int, default=128, metavar="N", help="tokens each gets (default: %(default)s)")
    group.add_argument("--turns", type=int, default=3, metavar="K", help="medians count (default: %(default)s)")
    group.add_argument("--threads", type=int, metavar="N", help="that compute (default: the machine's cores)")
    group.add_argument("--json", type=output_file, metavar="FILE", help="write the figures as JSON")


@dataclass(frozen=True, slots=True)
class ServerRun:
    """One turn of one server.

    Args:
        tokens_per_s: written by all chats together, over the time until the last token.
        ttft_p50_s: to the first token, median over the chats.
        ttft_p95_s: the same, which one chat in twenty exceeds.
        alone_ttft_s: to the first token of a single chat, before the others came.
        first_thread_share: of the machine, what the process's first thread took; HTTP, text and streams in vivace.
        peak_bytes: most memory held so far.
    """

    tokens_per_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    alone_ttft_s: float
    first_thread_share: float
    peak_bytes: int


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ConfigError: an unknown row, or numbers that can never work.
        VivaceError: the model cannot be loaded.
    """
    names = _check(arguments)
    from vivace.cli.compare.servers import Load
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL

    model = resolve(arguments.model or DEFAULT_MODEL)
    threads = arguments.threads or len(os.sched_getaffinity(0))
    load = Load(model, threads, arguments.chats, arguments.prompt + arguments.answer + 32)
    absent = _install(names) if arguments.install else {}
    runs: dict[str, list[ServerRun]] = {}
    for turn in range(arguments.turns):
        chats = chat_texts(model, arguments.chats + 1, arguments.prompt, turn)
        for name in names[:: 1 if turn % 2 == 0 else -1]:
            if name in absent:
                continue
            try:
                runs.setdefault(name, []).append(_run_turn(name, load, chats, arguments.answer))
            except VivaceError as error:
                absent[name] = str(error)
                runs.pop(name, None)
                continue
            said = runs[name][-1]
            _say(f"turn {turn + 1}, {name}: {said.tokens_per_s:.0f} tokens/s, TTFT p95 {said.ttft_p95_s * 1e3:.0f} ms")
    print(as_table(runs, absent))
    if arguments.json:
        found = {"rows": {name: [asdict(run) for run in mine] for name, mine in runs.items()}, "absent": absent}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _check(arguments: argparse.Namespace) -> list[str]:
    from vivace.cli.compare.servers import SERVERS, check_names

    names = [name.strip() for name in arguments.rows.split(",")]
    unknown = check_names(names)
    if unknown:
        raise ConfigError(f"There is no server {unknown[0]!r}.", f"Known are: {', '.join(SERVERS)}.")
    for name in ("chats", "prompt", "answer", "turns", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}.", "Give at least 1.")
    return names


def _install(names: Sequence[str]) -> dict[str, str]:
    """Install what is asked for; returns what cannot be had, with the reason."""
    from vivace.cli.compare.environments import PeerError, install
    from vivace.cli.compare.llama_server import MINUTES, build_llama_server
    from vivace.cli.compare.peers import PEERS

    absent = {}
    for name in names:
        try:
            if name.startswith("llama-server"):
                _say(f"{name}: building unless it is there (about {MINUTES} min)")
                build_llama_server()
            elif name.startswith("xllamacpp"):
                install(PEERS["xllamacpp"])
        except PeerError as error:
            absent[name] = str(error)
    return absent


def chat_texts(model: Path, count: int, num_tokens: int, turn: int) -> list[str]:
    """Questions of plain words that are `num_tokens` long as a whole prompt, other ones for each chat and turn."""
    from vivace.cli.compare.cases import Case, prompts_of
    from vivace.files.open import open_model
    from vivace.text.build import build_template, build_tokenizer
    from vivace.types.request import ChatMessage

    loaded = open_model(model)
    try:
        if loaded.vocabulary is None:
            raise ConfigError(f"{model} has no tokenizer.", "Use a model file that comes with one.")
        tokenizer = build_tokenizer(loaded.vocabulary)
        template = build_template(loaded.vocabulary, tokenizer)
        around = len(template.encode_chat([ChatMessage("user", "")]))
        if num_tokens <= around:
            raise ConfigError(f"The chat template alone takes {around} tokens.", "Ask for longer prompts.")
        case = Case(count, num_tokens - around, 1)
        return [tokenizer.decode(ids) for ids in prompts_of(case, turn, tokenizer.encode)]
    finally:
        loaded.close()


def _run_turn(name: str, load: "Load", chats: Sequence[str], answer_tokens: int) -> ServerRun:
    import time

    from vivace.cli.compare.environments import PeerError
    from vivace.cli.compare.load import chat_body, run_all
    from vivace.cli.compare.servers import RunningServer

    server = RunningServer(name, load)
    try:
        bodies = [chat_body(server.model, [{"role": "user", "content": text}], answer_tokens) for text in chats]
        run_all(server.port, [chat_body(server.model, [{"role": "user", "content": "Hello."}], 8)])  # warms up
        alone = run_all(server.port, [{**bodies[0], "max_tokens": 1}])
        before_s, began_s = server.main_thread_s(), time.perf_counter()
        answers = run_all(server.port, bodies[1:])
        elapsed_s = time.perf_counter() - began_s
        share = (server.main_thread_s() - before_s) / elapsed_s / (os.cpu_count() or 1)
        errors = [answer.error for answer in (*alone, *answers) if answer.error or not answer.pieces]
        if errors:
            raise PeerError(f"a chat failed: {errors[0][:200]}")
        firsts = sorted(answer.first_s for answer in answers)
        end_s = max(answer.pieces[-1] for answer in answers)
        written = sum(answer.num_tokens for answer in answers)
        late = firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))]
        peak = server.peak_memory_bytes()
        return ServerRun(written / end_s, statistics.median(firsts), late, alone[0].first_s, share, peak)
    finally:
        server.close()


def as_table(runs: Mapping[str, Sequence[ServerRun]], absent: Mapping[str, str]) -> str:
    """Rows down; medians of the turns, and the first row's throughput over each."""
    heads = {"tokens/s": 10, "first row": 11, "TTFT p50": 10, "p95": 9, "alone": 9, "thread 1": 10, "MiB": 7}
    lines = ["server".ljust(20) + "".join(head.rjust(width) for head, width in heads.items())]
    best = {name: _medians(mine) for name, mine in runs.items()}
    first = next(iter(best.values()), None)
    for name, row in best.items():
        ratio = "" if first is None or row is first else f"{first.tokens_per_s / row.tokens_per_s:.2f} x"
        lines.append(
            f"{name:20}{row.tokens_per_s:10.0f}{ratio:>11}{row.ttft_p50_s * 1e3:7.0f} ms{row.ttft_p95_s * 1e3:6.0f} ms"
            f"{row.alone_ttft_s * 1e3:6.0f} ms{row.first_thread_share:10.1%}{row.peak_bytes / 2**20:7.0f}"
        )
    lines += [f"absent: {name}: {reason}" for name, reason in absent.items()]
    return "\n".join(lines)


def _medians(runs: Sequence[ServerRun]) -> ServerRun:
    fields = [asdict(run) for run in runs]
    values = {name: statistics.median(row[name] for row in fields) for name in fields[0]}
    return ServerRun(**{**values, "peak_bytes": int(values["peak_bytes"])})


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
