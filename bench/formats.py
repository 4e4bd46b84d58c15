"""Size and speed of every format that compression writes, against FP32 and bf16 in the same engine.

    python bench/formats.py --model M.gguf --folder FOLDER            # makes the files, once
    python bench/formats.py --model M.gguf --folder FOLDER --measure  # times them; on an idle machine

A row is one file; the nested file has a row for each level that rows may read. `prompt`: tokens a second of reading 512
tokens in one step. `1 stream`, `8 streams`: tokens a second of steps that compute one token a stream, 256 tokens after
its start. Streams of `mixed levels` read low, mixed and full in turn, all in one batch. `agree`, with `--text`: how
often the kernels find the token likeliest that float32 finds over the same weights (widened to float32 and read with
float32 inputs by the same core; with `--numpy` by the reference executor), and how near their numbers are. `--json`
prints a list of objects.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vivace.compress.evaluate import EvaluationSettings, read_windows
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.save import compress_file
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.types.errors import VivaceError
from vivace.types.precision import FULL, LEVEL_NAMES, LOW, MIXED
from vivace.types.run_settings import EXACT_BITS
from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch
from vivace.types.weights import TensorFormat

PROMPT, START, MOST_STREAMS = 512, 256, 8


@dataclass(frozen=True, slots=True)
class FormatRow:
    """A file to make: the format of the layers, and of embedding and head."""

    name: str
    layers: TensorFormat
    ends: TensorFormat

    def recipe(self) -> Recipe:
        """Rounds to nearest; figures of speed do not depend on how codes were chosen."""
        rules = (
            TensorRule("embed.weight", self.ends),
            TensorRule("lm_head.weight", self.ends),
            TensorRule("*", self.layers),
        )
        return Recipe(self.name, rules, scales="minmax")


ROWS = {
    row.name: row
    for row in (
        FormatRow("FP32", TensorFormat.F32, TensorFormat.F32),
        FormatRow("BF16", TensorFormat.BF16, TensorFormat.BF16),
        FormatRow("F16", TensorFormat.F16, TensorFormat.F16),
        FormatRow("Q8_0", TensorFormat.Q8_0, TensorFormat.Q8_0),
        FormatRow("Q8_64", TensorFormat.Q8_64, TensorFormat.Q8_64),
        FormatRow("Q8_M", TensorFormat.Q8_M, TensorFormat.Q8_M),
        FormatRow("N8_0", TensorFormat.N8_0, TensorFormat.Q8_0),
        FormatRow("Q6_0", TensorFormat.Q6_0, TensorFormat.Q8_0),
        FormatRow("Q5_0", TensorFormat.Q5_0, TensorFormat.Q8_0),
        FormatRow("Q5_1", TensorFormat.Q5_1, TensorFormat.Q8_0),
        FormatRow("Q4_1", TensorFormat.Q4_1, TensorFormat.Q8_0),
        FormatRow("Q4_0", TensorFormat.Q4_0, TensorFormat.Q8_0),
        FormatRow("Q6_64", TensorFormat.Q6_64, TensorFormat.Q6_64),
        FormatRow("Q5_64", TensorFormat.Q5_64, TensorFormat.Q5_64),
        FormatRow("Q4_64", TensorFormat.Q4_64, TensorFormat.Q8_0),
        FormatRow("Q4_0, embedding Q6_0", TensorFormat.Q4_0, TensorFormat.Q6_0),
        FormatRow("Q4_0, embedding Q5_1", TensorFormat.Q4_0, TensorFormat.Q5_1),
        FormatRow("Q4_0, embedding Q5_0", TensorFormat.Q4_0, TensorFormat.Q5_0),
        FormatRow("Q4_0, embedding Q4_0", TensorFormat.Q4_0, TensorFormat.Q4_0),
    )
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of the table; speeds in tokens a second, None when not measured."""

    name: str
    bytes: int
    prompt: float | None = None
    one_stream: float | None = None
    eight_streams: float | None = None
    agree: float | None = None
    kl_to_oracle: float | None = None
    positions: int = 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Size and speed of every format.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--folder", type=Path, required=True, help="where the files are kept")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--measure", action="store_true", help="time the files")
    parser.add_argument("--text", type=Path, help="compare with the oracle on this text")
    parser.add_argument("--numpy", action="store_true", help="compare with the reference executor; slow")
    parser.add_argument("--windows", type=int, default=16, help="of 512 tokens, for --text")
    parser.add_argument("--activation-bits", type=int, choices=(12, 8, 32), default=12)
    parser.add_argument("--steps", type=int, default=48, help="steps timed a figure; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def make_file(options: argparse.Namespace, row: FormatRow) -> Path:
    """The row's file, made when it is not there."""
    path: Path = options.folder / f"{row.name.replace(', embedding ', '-')}.gguf"
    if not path.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        compress_file(options.model, path, row.recipe())
    return path


def batch_of(num_streams: int, first: int, rows: int, levels: Sequence[int] | None) -> ForwardBatch:
    """`rows` tokens from position `first` on of each stream, logits for the last of each."""
    blocks = -(-(first + rows) // BLOCK_SIZE)
    total = num_streams * rows
    return ForwardBatch(
        token_ids=(np.arange(total, dtype=np.int32) * 7919) % 30_000,
        positions=np.tile(np.arange(first, first + rows, dtype=np.int32), num_streams),
        sequence_starts=np.arange(0, total + 1, rows, dtype=np.int32),
        block_tables=np.arange(num_streams * blocks, dtype=np.int32).reshape(num_streams, blocks),
        logit_rows=np.arange(rows - 1, total, rows, dtype=np.int32),
        row_levels=None if levels is None else np.repeat(np.array(levels, np.int8), rows),
    )


def rate(executor: NativeExecutor, batch: ForwardBatch, repeats: int) -> float:
    """Tokens a second of a step, the median of `repeats`."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        executor.forward(batch)
        times.append(time.perf_counter() - started)
    return len(batch.token_ids) / statistics.median(times[2:])


def timed(executor: NativeExecutor, figures: Figures, levels: Sequence[int] | None, steps: int) -> Figures:
    """The figures with speeds; `levels` of the eight streams, the last of them for prompt and single stream."""
    last = None if levels is None else levels[-1:]
    return replace(
        figures,
        prompt=rate(executor, batch_of(1, 0, PROMPT, last), 3),
        one_stream=rate(executor, batch_of(1, START, 1, last), steps),
        eight_streams=rate(executor, batch_of(MOST_STREAMS, START, 1, levels), steps),
    )


def open_executor(model: LoadedModel, options: argparse.Namespace) -> NativeExecutor:
    """The native executor with room for all streams."""
    return NativeExecutor(
        build_graph(model.spec),
        model.weights,
        num_blocks=MOST_STREAMS * (START // BLOCK_SIZE + 1) + PROMPT // BLOCK_SIZE,
        num_threads=options.threads,
        activation_bits=options.activation_bits,
    )


def open_oracle(model: LoadedModel, num_threads: int, *, in_numpy: bool) -> Executor:
    """The same weights widened to float32, read with float32 inputs; keys and values in float32 too when in numpy."""
    graph, blocks = build_graph(model.spec), PROMPT // BLOCK_SIZE
    if in_numpy:
        return ReferenceExecutor(graph, model.weights, num_blocks=blocks)
    return NativeExecutor(graph, model.weights, num_blocks=blocks, num_threads=num_threads, activation_bits=EXACT_BITS)


def figures_of(options: argparse.Namespace, row: FormatRow) -> list[Figures]:
    """One row of the table, or one for each level of the nested file."""
    model = open_model(make_file(options, row))
    plain = Figures(row.name, sum(model.weights.info(name).num_bytes for name in model.weights.names()))
    executor = open_executor(model, options)
    if options.text is not None:
        settings = EvaluationSettings(window_tokens=PROMPT, num_windows=options.windows)
        oracle = open_oracle(model, options.threads, in_numpy=options.numpy)
        found = compare_executors(oracle, executor, read_windows(model, options.text, settings))
        plain = replace(plain, agree=found.same_top, kl_to_oracle=found.mean_kl, positions=found.num_positions)
    if not options.measure:
        return [plain]
    if row.layers is not TensorFormat.N8_0:
        return [timed(executor, plain, None, options.steps)]
    uniform = [
        timed(
            executor,
            replace(plain, name=f"{row.name}, {LEVEL_NAMES[level]}"),
            [level] * MOST_STREAMS,
            options.steps,
        )
        for level in (FULL, MIXED, LOW)
    ]
    turns = ([LOW, MIXED, FULL] * MOST_STREAMS)[:MOST_STREAMS]
    mixture = replace(plain, name=f"{row.name}, mixed levels")
    eight = rate(executor, batch_of(MOST_STREAMS, START, 1, turns), options.steps)
    return [*uniform, replace(mixture, eight_streams=eight)]


def print_table(rows: list[Figures], num_weights: int) -> None:
    """The Markdown table."""
    base = rows[0]
    print("| format | MB | bits a weight | smaller | prompt | 1 stream | 8 streams | agree with the oracle |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        speeds = [
            "" if value is None else f"{value:.1f}" + ("" if not first else f" ({value / first:.2f} x)")
            for value, first in (
                (row.prompt, base.prompt),
                (row.one_stream, base.one_stream),
                (row.eight_streams, base.eight_streams),
            )
        ]
        agree = "" if row.agree is None else f"{row.agree:.2%} of {row.positions}, KL {row.kl_to_oracle:.1e}"
        size = f"{row.bytes / 1e6:.1f} | {8 * row.bytes / num_weights:.2f} | {base.bytes / row.bytes:.2f} x"
        print(f"| {row.name} | {size} | {' | '.join(speeds)} | {agree} |", flush=True)


def main(arguments: list[str]) -> int:
    """Print the table."""
    options = parse(arguments)
    try:
        rows = [figures for name in options.rows for figures in figures_of(options, ROWS[name])]
        source = open_model(options.model)
        num_weights = sum(int(np.prod(source.weights.info(name).shape)) for name in source.weights.names())
    except (VivaceError, OSError) as error:
        print(f"formats: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print_table(rows, num_weights)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
