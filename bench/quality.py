"""Quality of an executor on a text: perplexity as llama.cpp measures it, and agreement with another executor.

    python bench/quality.py --model M.gguf --text wiki.test.raw --executor native --windows 30
    python bench/quality.py --model M.gguf --text wiki.test.raw --executor native --against reference --positions 2000
    python bench/quality.py --model M.gguf --text wiki.test.raw --against reference --kv-format bf16
    python bench/quality.py --model M.gguf --text wiki.test.raw --against reference --weights int8

Perplexity: windows of 512 tokens one after another, the second half of each scored, BOS first in each window for models
that take one. Agreement: over the same windows, how often both executors find the same token likeliest, and the mean
KL divergence of their next-token distributions. `--json` prints one object.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from vivace.execute.score import Tokens, compare_executors, cut_windows, score_windows
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError, VivaceError
from vivace.types.kv import DEFAULT_KV_FORMAT, KV_FORMAT_NAMES
from vivace.types.run_settings import DEFAULT_ACTIVATION_BITS, FILE_WEIGHTS, WEIGHT_FORMATS
from vivace.types.step import BLOCK_SIZE, Executor
from vivace.types.weights import WeightSource


def make_reference(graph: Graph, weights: WeightSource, num_blocks: int, _options: argparse.Namespace) -> Executor:
    """The oracle in numpy, keys and values in float32; it takes its threads from the BLAS."""
    from vivace.execute.reference import ReferenceExecutor

    return ReferenceExecutor(graph, weights, num_blocks=num_blocks)


def make_native(graph: Graph, weights: WeightSource, num_blocks: int, options: argparse.Namespace) -> Executor:
    """The C++ executor."""
    from vivace.execute.native import NativeExecutor

    return NativeExecutor(
        graph,
        weights,
        num_blocks=num_blocks,
        num_threads=options.threads,
        activation_bits=options.activation_bits,
        kv_format=options.kv_format,
        weight_format=options.weights,
    )


EXECUTORS: dict[str, Callable[[Graph, WeightSource, int, argparse.Namespace], Executor]] = {
    "reference": make_reference,
    "native": make_native,
}


def read_windows(options: argparse.Namespace) -> list[Tokens]:
    """The windows of the text, tokenised by the model's own vocabulary; special tokens in the text stay text."""
    model = open_model(options.model)
    if model.vocabulary is None:
        raise ConfigError(f"{options.model} has no vocabulary to tokenise the text with.", "Use a whole model file.")
    tokenizer = build_tokenizer(model.vocabulary)
    ids = tokenizer.encode(options.text.read_text(encoding="utf-8"))
    model.close()
    return cut_windows(ids, options.size, options.windows, tokenizer.bos_id if tokenizer.adds_bos else None)


def make_executor(kind: str, options: argparse.Namespace) -> Executor:
    """An executor of the kind over its own opening of the model, with room for one window."""
    model = open_model(options.model)
    return EXECUTORS[kind](build_graph(model.spec), model.weights, -(-options.size // BLOCK_SIZE), options)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run what was asked for and return its figures."""
    windows = read_windows(options)
    if options.against is not None:
        per_window = options.size - options.size // 2
        windows = windows[: -(-options.positions // per_window)]
    executor = make_executor(options.executor, options)
    started = time.perf_counter()
    if options.against is None:
        score = score_windows(executor, windows)
        figures = {"perplexity": score.perplexity, "perplexity_error": score.perplexity_error, **asdict(score)}
    else:
        other = make_executor(options.against, options)
        figures = {"against": options.against, **asdict(compare_executors(other, executor, windows))}
        other.close()
    executor.close()
    settings = {"model": options.model.name, "text": options.text.name, "executor": options.executor}
    return {**settings, "windows": len(windows), **figures, "seconds": time.perf_counter() - started}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Perplexity of an executor, or its agreement with another.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text, such as wiki.test.raw")
    parser.add_argument("--executor", choices=sorted(EXECUTORS), default="native")
    parser.add_argument("--against", choices=sorted(EXECUTORS), help="compare with this executor instead of scoring")
    parser.add_argument("--windows", type=int, default=30)
    parser.add_argument("--size", type=int, default=512, help="tokens in a window")
    parser.add_argument("--positions", type=int, default=2000, help="fewest positions that --against compares")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", choices=WEIGHT_FORMATS, default=FILE_WEIGHTS, help="as vivace takes it")
    parser.add_argument(
        "--activation-bits", type=int, choices=(8, 12), default=DEFAULT_ACTIVATION_BITS, help="as vivace takes it"
    )
    parser.add_argument(
        "--kv-format", choices=KV_FORMAT_NAMES, default=DEFAULT_KV_FORMAT, help="of the native executor"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Print the figures, one a line or as JSON."""
    options = parse(arguments)
    try:
        figures = measure(options)
    except (VivaceError, OSError, UnicodeDecodeError) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>20}  {value:.6g}" if isinstance(value, float) else f"{name:>20}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
