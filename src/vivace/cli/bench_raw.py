"""`vivace bench raw`: how fast one sequence is read and continued, without any front in between.

Drives `engine.core.Engine` step by step in this thread: scheduling, forward pass and sampling are in the figures,
text and threads between callers are not.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vivace.cli.model_options import add_model_options, check_model_options, use_isa
from vivace.types.errors import ConfigError, EngineError
from vivace.types.events import FailEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, StopParams

if TYPE_CHECKING:
    from vivace.engine.core import Engine
    from vivace.execute.native import NativeExecutor

HELP = "one sequence: tokens/s of reading a prompt and of continuing it"
DESCRIPTION = "Measure one sequence: reading a prompt of random tokens, then continuing it greedily token by token."

_WARM_UP_TOKENS = 4
_SPARE_BLOCKS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sizes of the measurement."""
    group = parser.add_argument_group("measurement")
    group.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens to read (default: %(default)s)")
    group.add_argument("--decode", type=int, default=96, metavar="N", help="tokens to write (default: %(default)s)")
    group.add_argument("--repeat", type=int, default=3, metavar="K", help="runs; medians count (default: %(default)s)")
    group.add_argument(
        "--batch-tokens", type=int, default=512, metavar="N", help="most tokens of a step (default: %(default)s)"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)


@dataclass(frozen=True, slots=True)
class RawRun:
    """Seconds of one run. `first_token_s` is the time to read the prompt and draw the first token."""

    first_token_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class RawFigures:
    """What is printed: `prompt` and `decode` are medians in tokens/s; the lists have every run in order."""

    prompt: float
    decode: float
    first_token_s: float
    model: str
    model_bytes: int
    isa: str
    threads: int
    kv_bytes_per_token: int
    prompt_tokens: int
    decode_tokens: int
    repeats: int
    prompt_runs: list[float]
    decode_runs: list[float]
    load_s: float
    peak_memory_bytes: int


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ConfigError: sizes that can never work, or that do not fit into the model's context.
        VivaceError: the model cannot be loaded.
    """
    check_model_options(arguments)
    for name in ("prompt", "decode", "repeat", "batch_tokens"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}.", "Give at least 1.")
    use_isa(arguments)
    figures = _measure(arguments)
    print(json.dumps(asdict(figures)) if arguments.json else _table(figures))
    return 0


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is measured."""

    engine: "Engine"
    executor: "NativeExecutor"
    name: str
    vocab_size: int
    num_bytes: int


def _measure(arguments: argparse.Namespace) -> RawFigures:
    from vivace.types.step import BLOCK_SIZE

    started_s = time.perf_counter()
    subject = _open(arguments)
    load_s = time.perf_counter() - started_s
    try:
        _run_once(subject, 0, min(arguments.prompt, arguments.batch_tokens), min(arguments.decode, _WARM_UP_TOKENS))
        runs = [_run_once(subject, k + 1, arguments.prompt, arguments.decode) for k in range(arguments.repeat)]
        isa, threads = subject.executor.isa, subject.executor.num_threads
        kv_bytes = subject.executor.bytes_per_block // BLOCK_SIZE
    finally:
        subject.engine.close()
    prompt_runs = [arguments.prompt / one.first_token_s for one in runs]
    decode_runs = [arguments.decode / one.decode_s for one in runs]
    return RawFigures(
        prompt=statistics.median(prompt_runs),
        decode=statistics.median(decode_runs),
        first_token_s=statistics.median(one.first_token_s for one in runs),
        model=subject.name,
        model_bytes=subject.num_bytes,
        isa=isa,
        threads=threads,
        kv_bytes_per_token=kv_bytes,
        prompt_tokens=arguments.prompt,
        decode_tokens=arguments.decode,
        repeats=arguments.repeat,
        prompt_runs=prompt_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _open(arguments: argparse.Namespace) -> _Subject:
    from vivace.engine.build import EngineConfig, choose_precision
    from vivace.engine.core import Engine
    from vivace.engine.precision import check_precision, parse_precision
    from vivace.execute.native import NativeExecutor
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL
    from vivace.files.open import open_model
    from vivace.graph.build import build_graph
    from vivace.schedule.config import SchedulerConfig
    from vivace.types.run_settings import choose_inputs
    from vivace.types.step import BLOCK_SIZE

    loaded = open_model(resolve(arguments.model or DEFAULT_MODEL))
    length = arguments.prompt + arguments.decode + 1  # the first token that is written belongs to the prompt's time
    most = min(arguments.context or loaded.spec.context_length, loaded.spec.context_length)
    if length > most:
        loaded.close()
        raise ConfigError(
            f"--prompt and --decode together take {length} tokens and the context holds {most}.", "Lower one of them."
        )
    asked = EngineConfig(
        activation_bits=arguments.activation_bits, kv_format=arguments.kv_format, weights=arguments.weights
    )
    activation_bits, kv_format = choose_precision(loaded, asked)
    executor = NativeExecutor(
        build_graph(loaded.spec),
        loaded.weights,
        num_blocks=-(-length // BLOCK_SIZE) + _SPARE_BLOCKS,
        max_rows=arguments.batch_tokens,
        num_threads=arguments.threads,
        activation_bits=activation_bits,
        kv_format=kv_format,
        weight_format=arguments.weights,
        inputs=choose_inputs(loaded.run_settings, arguments.activation_bits)[1],
    )
    check_precision(arguments.precision, loaded.weights)
    config = SchedulerConfig(
        max_batch_tokens=arguments.batch_tokens,
        max_sequences=1,
        max_chunk_tokens=arguments.batch_tokens,
        context_length=length,
        prefix_cache=False,
    )
    num_bytes = sum(loaded.weights.info(name).num_bytes for name in loaded.weights.names())
    engine = Engine(executor, config, precision=parse_precision(arguments.precision))
    return _Subject(engine, executor, loaded.name, loaded.spec.vocab_size, num_bytes)


def _run_once(subject: _Subject, number: int, num_prompt: int, num_decode: int) -> RawRun:
    """Read a prompt of random tokens (another one each run) and continue it greedily."""
    from vivace.engine.core import always

    draw = random.Random(number)
    request = GenerationRequest(
        request_id=f"run-{number}",
        prompt_ids=tuple(draw.randrange(subject.vocab_size) for _ in range(num_prompt)),
        sampling=SamplingParams(temperature=0.0),
        stopping=StopParams(max_tokens=num_decode + 1, ignore_eos=True),
    )
    first_s = None
    started_s = time.perf_counter()
    subject.engine.add(request)
    while subject.engine.has_work:
        for event in subject.engine.step(may_run_ahead=always):
            if isinstance(event, FailEvent):
                raise event.error
            if first_s is None and isinstance(event, TokenEvent):
                first_s = time.perf_counter()
    ended_s = time.perf_counter()
    if first_s is None:
        raise EngineError("The engine ended a run without a token.")
    return RawRun(first_s - started_s, ended_s - first_s)


def _peak_memory_bytes() -> int:
    """Most memory this process ever held; macOS counts it in bytes, others in KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _table(figures: RawFigures) -> str:
    mebibyte = 1024 * 1024
    rows = {
        "model": f"{figures.model} ({figures.model_bytes / mebibyte:.0f} MiB of weights)",
        "machine": f"{figures.threads} threads, {figures.isa}",
        f"prompt {figures.prompt_tokens}": f"{figures.prompt:.1f} tokens/s, first token {figures.first_token_s:.3f} s",
        f"decode {figures.decode_tokens}": f"{figures.decode:.1f} tokens/s",
        "runs": f"{figures.repeats}, medians shown",
        "load": f"{figures.load_s:.2f} s",
        "peak memory": f"{figures.peak_memory_bytes / mebibyte:.0f} MiB",
    }
    return "\n".join(f"{title.ljust(14)}{text}" for title, text in rows.items())
