"""`vivace bench latency`: batch size against the time a token takes, and against tokens a second of all streams.

Every batch size runs prompts of equal length on that many streams at once, through the engine step by step. As streams
are added, all of them share each read of the weights: tokens a second rise until arithmetic is the limit, and from
there every further stream only makes the others wait.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.bench_compare import require_matplotlib
from vivace.cli.compare.machine import load_average, moment, others_share
from vivace.cli.model_options import add_model_options, check_model_options, use_isa
from vivace.cli.output_files import output_file
from vivace.types.errors import ConfigError
from vivace.types.events import FailEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, StopParams

if TYPE_CHECKING:
    from vivace.engine.core import Engine

HELP = "batch size against latency and throughput"
DESCRIPTION = (
    "Measure how long a token takes, and how many tokens a second come out, when 1, 2, 4 ... streams run together."
)
_MAX_BATCH_TOKENS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sizes of the measurement."""
    group = parser.add_argument_group("measurement")
    group.add_argument("--streams", default="1,2,4,8,16,32", metavar="LIST", help="batch sizes (default: %(default)s)")
    group.add_argument("--prompt", type=int, default=128, metavar="N", help="tokens each reads (default: %(default)s)")
    group.add_argument("--decode", type=int, default=64, metavar="N", help="tokens each writes (default: %(default)s)")
    group.add_argument("--repeat", type=int, default=3, metavar="K", help="runs; medians count (default: %(default)s)")
    group.add_argument("--json", type=output_file, metavar="FILE", help="write the figures as JSON")
    group.add_argument("--plot", type=output_file, metavar="FILE", help="draw a PNG (needs matplotlib)")
    add_model_options(parser)


@dataclass(frozen=True, slots=True)
class Point:
    """One batch size.

    Args:
        streams: sequences that ran together.
        token_ms: median over the steps and runs of the time a step took: what each stream waits for its next token.
        slow_token_ms: the time that one step in twenty exceeded.
        tokens_per_s: of all streams together, median over the runs.
        first_token_s: until every stream had its first token, median over the runs.
        others_share: most of the machine that others used beside a run.
        load_average: when it was measured.
    """

    streams: int
    token_ms: float
    slow_token_ms: float
    tokens_per_s: float
    first_token_s: float
    others_share: float
    load_average: float


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for.

    Raises:
        ConfigError: numbers that can never work.
        MissingExtraError: a plot is asked for and matplotlib is missing.
        VivaceError: the model cannot be loaded.
    """
    check_model_options(arguments)
    sizes = _batch_sizes(arguments.streams)
    for name in ("prompt", "decode", "repeat"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} is {getattr(arguments, name)}.", "Give at least 1.")
    if arguments.plot:
        require_matplotlib()
    use_isa(arguments)
    engine, name, vocab_size = _open(arguments, max(sizes))
    try:
        _run_once(engine, _requests(1, arguments, vocab_size, 0))  # the first step ever touches everything
        points = [_measure(engine, size, arguments, vocab_size) for size in sizes]
    finally:
        engine.close()
    print(as_table(points))
    if arguments.json:
        text = json.dumps({"model": name, "points": [asdict(point) for point in points]}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.plot:
        draw(points, name, arguments.plot)
    return 0


def _batch_sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ConfigError(f"--streams is {text!r}.", "Give numbers with commas between, such as 1,4,16.") from None
    if sizes[0] < 1 or sizes[-1] >= _MAX_BATCH_TOKENS:
        raise ConfigError(f"--streams is {text!r}.", f"Give numbers from 1 to {_MAX_BATCH_TOKENS - 1}.")
    return sizes


def _open(arguments: argparse.Namespace, most: int) -> "tuple[Engine, str, int]":
    from vivace.engine.core import Engine
    from vivace.execute.native import NativeExecutor
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL
    from vivace.files.open import open_model
    from vivace.graph.build import build_graph
    from vivace.schedule.config import SchedulerConfig
    from vivace.types.step import BLOCK_SIZE

    loaded = open_model(resolve(arguments.model or DEFAULT_MODEL))
    length = arguments.prompt + arguments.decode + 1  # the first token that is written belongs to the prompt
    if length > loaded.spec.context_length:
        loaded.close()
        raise ConfigError(
            f"--prompt and --decode together take {length} tokens and the context holds {loaded.spec.context_length}.",
            "Lower one of them.",
        )
    executor = NativeExecutor(
        build_graph(loaded.spec),
        loaded.weights,
        num_blocks=most * (length // BLOCK_SIZE + 2),
        max_rows=_MAX_BATCH_TOKENS,
        num_threads=arguments.threads,
    )
    config = SchedulerConfig(
        max_batch_tokens=_MAX_BATCH_TOKENS, max_sequences=most, context_length=length, prefix_cache=False
    )
    return Engine(executor, config), loaded.name, loaded.spec.vocab_size


def _requests(streams: int, arguments: argparse.Namespace, vocab_size: int, number: int) -> list[GenerationRequest]:
    draw = random.Random(number)
    return [
        GenerationRequest(
            request_id=f"{streams}-{number}-{stream}",
            prompt_ids=tuple(draw.randrange(vocab_size) for _ in range(arguments.prompt)),
            sampling=SamplingParams(temperature=0.0),
            stopping=StopParams(max_tokens=arguments.decode + 1, ignore_eos=True),
        )
        for stream in range(streams)
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    first_token_s: float
    step_s: list[float]
    tokens_per_s: float


def _run_once(engine: "Engine", requests: list[GenerationRequest]) -> _Run:
    """Steps count once every stream has its first token: from then on each step gives one token to each stream."""
    from vivace.engine.core import always

    waiting = {request.request_id for request in requests}
    for request in requests:
        engine.add(request)
    started_s = after_s = time.perf_counter()
    all_started_s, step_s, num_tokens = started_s, [], 0
    while engine.has_work:
        before_s = after_s  # the next step may be under way since then
        events = engine.step(may_run_ahead=always)
        after_s = time.perf_counter()
        for event in events:
            if isinstance(event, FailEvent):
                raise event.error
        tokens = [event for event in events if isinstance(event, TokenEvent)]
        if waiting:
            waiting -= {event.request_id for event in tokens}
            all_started_s = after_s
        elif tokens:
            step_s.append(after_s - before_s)
            num_tokens += len(tokens)
    return _Run(all_started_s - started_s, step_s, num_tokens / sum(step_s) if step_s else 0.0)


def _measure(engine: "Engine", streams: int, arguments: argparse.Namespace, vocab_size: int) -> Point:
    runs, shares = [], []
    for number in range(1, arguments.repeat + 1):
        before = moment()
        runs.append(_run_once(engine, _requests(streams, arguments, vocab_size, number)))
        shares.append(others_share(before, moment()))
    steps = sorted(seconds for one in runs for seconds in one.step_s)
    return Point(
        streams=streams,
        token_ms=1000 * statistics.median(steps),
        slow_token_ms=1000 * steps[int(0.95 * (len(steps) - 1))],
        tokens_per_s=statistics.median(one.tokens_per_s for one in runs),
        first_token_s=statistics.median(one.first_token_s for one in runs),
        others_share=max(shares),
        load_average=load_average(),
    )


def as_table(points: list[Point]) -> str:
    """One line a batch size."""
    lines = ["streams   ms a token   one in 20 over   tokens/s   all started   others used   load"]
    lines += [
        f"{point.streams:7d}{point.token_ms:13.2f}{point.slow_token_ms:17.2f}{point.tokens_per_s:11.0f}"
        f"{point.first_token_s:12.2f} s{point.others_share:14.0%}{point.load_average:7.1f}"
        for point in points
    ]
    return "\n".join(lines)


def draw(points: list[Point], model: str, path: Path) -> None:
    """Batch size against the time of a token (left) and tokens a second (right); needs matplotlib."""
    from matplotlib.figure import Figure

    streams = [point.streams for point in points]
    canvas = Figure(figsize=(9, 3.6), layout="constrained")
    latency, throughput = canvas.subplots(1, 2)
    latency.plot(streams, [point.token_ms for point in points], "o-", color="#c2410c", label="median")
    latency.plot(streams, [point.slow_token_ms for point in points], "--", color="#64748b", label="95th percentile")
    latency.set_ylabel("ms a token")
    latency.legend()
    throughput.plot(streams, [point.tokens_per_s for point in points], "o-", color="#c2410c")
    throughput.set_ylabel("tokens/s, all streams")
    for panel in (latency, throughput):
        panel.set_xscale("log", base=2)
        panel.set_xticks(streams, [str(size) for size in streams])
        panel.set_xlabel("streams at once")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    canvas.suptitle(model, fontsize=10)
    canvas.savefig(path, dpi=130)
