"""Dynamic precision: quality and speed of each level by band of positions, and what a switch costs.

    python bench/nested.py --model M.gguf --nested N.gguf --text wiki.test.raw     # quality, takes minutes
    python bench/nested.py --model M.gguf --nested N.gguf --speed                  # on an idle machine

`N.gguf` is what `vivace compress M.gguf N.gguf --recipe nested` makes. Quality: windows of 1,024 tokens, all positions;
KL divergence from M, perplexity ratio and same top token in the chapter's bands, with every row at one level and with
the bands' own (`chapter`). Speed: steps of one token of one stream and of eight at the middle of each band. A switch is
timed as the first step after the level changes beside the steps that follow it, and as what the policy itself takes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vivace.compress.evaluate import EvaluationSettings, read_windows
from vivace.engine.precision import PrecisionPolicy, parse_precision
from vivace.evaluate.levels import LEVEL_POLICIES, read_levels
from vivace.execute.native import NativeExecutor
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.types.errors import VivaceError
from vivace.types.step import BLOCK_SIZE, ForwardBatch

WINDOW, STREAMS = 1024, 8
BANDS = ((0, 128), (128, 512), (512, WINDOW))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Quality and speed of dynamic precision.")
    parser.add_argument("--model", type=Path, required=True, help="what the nested file was made of")
    parser.add_argument("--nested", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="measure quality on this text")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


def policy_of(name: str) -> PrecisionPolicy:
    """A policy that is one."""
    policy = parse_precision(name)
    assert policy is not None
    return policy


def open_native(model: LoadedModel, threads: int) -> NativeExecutor:
    """With room for eight streams of a whole window."""
    return NativeExecutor(
        build_graph(model.spec), model.weights, num_blocks=STREAMS * WINDOW // BLOCK_SIZE, num_threads=threads
    )


def quality(options: argparse.Namespace, model: LoadedModel, reference: NativeExecutor, nested: NativeExecutor) -> None:
    """Print a row for each policy and band, as `vivace evaluate --levels` does."""
    settings = EvaluationSettings(window_tokens=WINDOW, num_windows=options.windows)
    windows = read_windows(model, options.text, settings)
    print("| rows read | positions | perplexity ratio | KL divergence | same top token |\n|---|---|---|---|---|")
    for band in read_levels(nested, reference, windows, lambda *_: None):
        print(
            f"| {band.rows} | {band.begin} to {band.end - 1} | {band.ppl_ratio:.4f} ± {band.ppl_ratio_error:.4f} "
            f"| {band.kld:.4f} ± {band.kld_error:.4f} | {band.same_top:.1%} |"
        )


def step_of(streams: int, position: int, levels: Sequence[int]) -> ForwardBatch:
    """One token of each stream at a position."""
    blocks = WINDOW // BLOCK_SIZE
    return ForwardBatch(
        token_ids=np.arange(streams, dtype=np.int32) + 1000,
        positions=np.full(streams, position, np.int32),
        sequence_starts=np.arange(streams + 1, dtype=np.int32),
        block_tables=np.arange(streams * blocks, dtype=np.int32).reshape(streams, blocks),
        logit_rows=np.arange(streams, dtype=np.int32),
        row_levels=np.array(levels, np.int8),
    )


def seconds(executor: NativeExecutor, batch: ForwardBatch) -> float:
    """One step."""
    started = time.perf_counter()
    executor.forward(batch)
    return time.perf_counter() - started


def speed(options: argparse.Namespace, nested: NativeExecutor) -> None:
    """Print tokens a second by band, and the cost of a switch."""
    print("| rows read | positions | 1 stream | 8 streams |\n|---|---|---|---|")
    for name, words in LEVEL_POLICIES.items():
        for begin, end in BANDS:
            position = (begin + end) // 2
            level = int(policy_of(words).levels(np.array([position], np.int32), 1)[0])
            rates = []
            for streams in (1, STREAMS):
                batch = step_of(streams, position, [level] * streams)
                times = [seconds(nested, batch) for _ in range(options.steps + 2)]
                rates.append(streams / statistics.median(times[2:]))
            print(f"| {name} | {begin} to {end - 1} | {rates[0]:.1f} | {rates[1]:.1f} |", flush=True)
    firsts: dict[bool, list[float]] = {True: [], False: []}
    for switching in (True, False):
        for _ in range(options.steps):
            for level in (0, 2) if switching else (2, 2):
                times = [seconds(nested, step_of(1, 256, [level])) for _ in range(4)]
                firsts[switching].append(times[0] - statistics.median(times[1:]))
    rows, policy = np.arange(STREAMS, dtype=np.int32), policy_of("chapter+load:4")
    started = time.perf_counter()
    for _ in range(1000):
        policy.levels(rows, STREAMS)
    chosen = (time.perf_counter() - started) / 1000
    print(f"\nchoosing levels of {STREAMS} rows takes {1e3 * chosen:.4f} ms; the first step of four beside the others:")
    for switching, found in firsts.items():
        middle, high = statistics.median(found), sorted(found)[int(0.9 * len(found))]
        what = "after a switch" if switching else "with no switch"
        print(f"{what}: {1e3 * middle:+.3f} ms (9 of 10 under {1e3 * high:.3f} ms)")


def main(arguments: list[str]) -> int:
    """Print what is asked for."""
    options = parse(arguments)
    try:
        model, small = open_model(options.model), open_model(options.nested)
        nested = open_native(small, options.threads)
        if options.text is not None:
            quality(options, model, open_native(model, options.threads), nested)
        if options.speed:
            speed(options, nested)
    except (VivaceError, OSError) as error:
        print(f"nested: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
