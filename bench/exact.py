"""What of a disagreement with the float32 oracle is whose: rounded inputs, keys and values in float16, order of sums.

    python bench/exact.py --model M.gguf --text wiki.test.raw --windows 2      # the oracle is numpy: minutes a window

Every executor reads the same windows of 512 tokens over the same weights, and all positions count. The oracle is the
reference executor, with keys and values in float32 and in float16; beside it the native core, with inputs in 12 bits,
in 8, and not rounded (`--activation-bits 32`). `gap` is the difference between the oracle's two best logits where the
two disagree, the largest of them: near ties are where roundings show.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.compress.evaluate import EvaluationSettings, read_windows
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import Tokens, iterate_logits
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.types.errors import VivaceError
from vivace.types.step import BLOCK_SIZE, ForwardPass

WINDOW = 512
ORACLES = {"float32": None, "float16": "f16"}
BITS = (32, 12, 8)


def likeliest(executor: ForwardPass, window: Tokens) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The likeliest token of every position, and how far it is ahead of the next."""
    tops, gaps = [], []
    for _, logits in iterate_logits(executor, window, 0):
        best = np.partition(logits, -2, axis=1)[:, -2:]
        tops.append(logits.argmax(axis=1))
        gaps.append(best[:, 1] - best[:, 0])
    return np.concatenate(tops), np.concatenate(gaps)


def run(options: argparse.Namespace) -> None:
    """Print the table anew after every window: the oracle is slow."""
    model = open_model(options.model)
    windows = read_windows(model, options.text, EvaluationSettings(WINDOW, options.windows))
    graph, blocks = build_graph(model.spec), WINDOW // BLOCK_SIZE
    makers: dict[str, Callable[[], ForwardPass]] = {
        **{
            name: lambda kv=kv: ReferenceExecutor(graph, model.weights, num_blocks=blocks, kv_format=kv)  # type: ignore[misc]
            for name, kv in ORACLES.items()
        },
        **{
            f"{bits} bits": lambda bits=bits: NativeExecutor(  # type: ignore[misc]
                graph, model.weights, num_blocks=blocks, num_threads=options.threads, activation_bits=bits
            )
            for bits in BITS
        },
    }
    executors = {name: make() for name, make in makers.items()}
    tops: dict[str, list[NDArray[np.intp]]] = {name: [] for name in executors}
    gaps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in executors}
    for window in windows:
        for name, executor in executors.items():
            top, gap = likeliest(executor, window)
            tops[name].append(top)
            gaps[name].append(gap)
        heads = " | ".join(f"keys and values in {name} | gap" for name in ORACLES)
        print(f"| inputs in | {heads} |\n|---|---|---|---|---|")
        for name in (*ORACLES, *(f"{bits} bits" for bits in BITS)):
            cells = []
            for oracle in ORACLES:
                differ = np.concatenate(tops[name]) != np.concatenate(tops[oracle])
                largest = np.concatenate(gaps[oracle])[differ].max(initial=0.0)
                cells.append(f"{1 - differ.mean():.2%} of {differ.size} | {largest:.4f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(arguments: list[str]) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description="Agreement with the float32 oracle.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    try:
        run(parser.parse_args(arguments))
    except VivaceError as error:
        print(f"exact: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
