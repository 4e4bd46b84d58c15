"""Ways to quantise the inputs of linears, side by side, over 8-bit weights: what the kernel runs and what it does not.

    python bench/activations.py --model M.gguf --text wiki.test.raw --calibrate-on c4.utf8

Weights are those of the recipe `int8`. Rows of the kernel are measured on the native executor, all others on the
reference executor; each beside the source on the same executor, so that a row holds quantisation alone.
"""

import argparse
import sys
from pathlib import Path

from vivace.compress.activation_schemes import KERNELS, ActivationScheme
from vivace.compress.activations import observe_inputs, simulate
from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.evaluate import Evaluation, EvaluationSettings, evaluate, read_windows
from vivace.compress.observers import OBSERVERS
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, CalibrationSettings
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.step import BLOCK_SIZE

DYNAMIC = [
    ActivationScheme(8, granularity="group"),
    ActivationScheme(8, granularity="group", clip=0.95),
    ActivationScheme(8, granularity="token"),
    ActivationScheme(8, granularity="token", symmetric=False),
    ActivationScheme(8, granularity="tensor"),
    ActivationScheme(6, granularity="group"),
    ActivationScheme(4, granularity="group"),
]
STATIC = [ActivationScheme(8, "static", "tensor", observer=name) for name in OBSERVERS]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Ways to quantise activations side by side.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to evaluate on")
    parser.add_argument("--calibrate-on", type=Path, action="append", required=True, help="text for static ranges")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    return parser.parse_args(arguments)


def print_row(name: str, figures: Evaluation) -> None:
    """A line of the Markdown table."""
    print(
        f"| {name} | {figures.ppl_ratio:.4f} ± {figures.ppl_ratio_error:.4f} | {figures.kld:.5f} "
        f"| {figures.same_top:.1%} |",
        flush=True,
    )


def main(arguments: list[str]) -> int:
    """Print the table."""
    options = parse(arguments)
    model = open_model(options.model)
    assert model.vocabulary is not None, "the model file has no vocabulary"
    settings = EvaluationSettings(num_windows=options.windows)
    windows = read_windows(model, options.text, settings)
    calibration = CalibrationSettings(samples=options.samples)
    samples = draw_windows(read_texts(options.calibrate_on), build_tokenizer(model.vocabulary), calibration, None)
    kept, graph = compress_weights(model.spec, model.weights, PRESETS["int8"]).weights, build_graph(model.spec)
    blocks, size = -(-len(windows[0]) // BLOCK_SIZE), kept.num_bytes()
    print("| activations | perplexity ratio | KL divergence | same top |\n|---|---|---|---|")
    for row in KERNELS:
        pair = [
            NativeExecutor(graph, held, num_blocks=blocks, activation_bits=bits)
            for held, bits in ((kept, row.activation_bits), (model.weights, 12))
        ]
        print_row(f"native, {row.scheme.name}", evaluate(pair[0], windows, size, reference=pair[1]))
    exact = ReferenceExecutor(graph, model.weights, num_blocks=blocks)
    alone = ReferenceExecutor(graph, kept, num_blocks=blocks)
    print_row("float32 (weights alone)", evaluate(alone, windows, size, reference=exact))
    observed = observe_inputs(graph, kept, samples)
    for scheme in DYNAMIC + STATIC:
        executor = simulate(graph, kept, scheme, len(windows[0]), observed)
        print_row(scheme.name, evaluate(executor, windows, size, reference=exact))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
