"""Ways to quantise the inputs of linears, side by side, over 8-bit weights: what the kernel runs and what it does not.

    python bench/activations.py --model M.gguf --text wiki.test.raw --calibrate-on c4.utf8

Weights are those of the recipe `int8`. "Deployed" rows are measured on the native executor, "simulated" ones in
float32; each beside the source on the same executor (deployed: with inputs in 12 bits), so that a row holds
quantisation alone.
"""

import argparse
import sys
from pathlib import Path

from vivace.compress.activation_schemes import REFUSED, ActivationScheme
from vivace.compress.activations import simulate
from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.evaluate import Evaluation, EvaluationSettings, evaluate, read_windows
from vivace.compress.input_ranges import observe_inputs, stored_range
from vivace.compress.observers import OBSERVERS
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, CalibrationSettings
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.input_scheme import InputScheme
from vivace.types.step import BLOCK_SIZE

DYNAMIC = [
    ActivationScheme(8, granularity="group"),
    ActivationScheme(8, granularity="group", clip=0.95),
    ActivationScheme(8, granularity="token"),
    ActivationScheme(8, granularity="token", symmetric=False),
    ActivationScheme(12, granularity="token"),
    ActivationScheme(8, granularity="tensor"),
    ActivationScheme(6, granularity="group"),
    ActivationScheme(4, granularity="group"),
]
STATIC = [
    *(ActivationScheme(8, "static", "tensor", observer=name) for name in OBSERVERS),
    ActivationScheme(8, "static", "tensor", symmetric=False),
    ActivationScheme(12, "static", "tensor"),
]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Ways to quantise activations side by side.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to evaluate on")
    parser.add_argument("--calibrate-on", type=Path, action="append", required=True, help="text for static ranges")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rows", nargs="+", choices=("deployed", "simulated"), default=["deployed", "simulated"])
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
    seen = observe_inputs(graph, kept, samples)
    schemes = {}
    for scheme in DYNAMIC + STATIC:
        is_static = scheme.mode == "static"
        schemes[scheme] = {name: stored_range(one, scheme) for name, one in seen.items()} if is_static else {}
    if "deployed" in options.rows:
        source = NativeExecutor(graph, model.weights, num_blocks=blocks)
        for scheme in (ActivationScheme(12), *schemes):
            if (scheme.mode, scheme.granularity, scheme.symmetric) in REFUSED:
                continue
            clips = dict.fromkeys(seen, scheme.clip) if scheme.clip < 1 else {}
            inputs = InputScheme(scheme.granularity, scheme.symmetric, clips, schemes.get(scheme, {}))
            executor = NativeExecutor(graph, kept, num_blocks=blocks, activation_bits=scheme.bits, inputs=inputs)
            print_row(f"deployed, {scheme.name}", evaluate(executor, windows, size, reference=source))
    if "simulated" in options.rows:
        exact = ReferenceExecutor(graph, model.weights, num_blocks=blocks)
        alone = ReferenceExecutor(graph, kept, num_blocks=blocks)
        print_row("float32 (weights alone)", evaluate(alone, windows, size, reference=exact))
        for scheme, ranges in schemes.items():
            simulated = simulate(graph, kept, scheme, len(windows[0]), ranges)
            print_row(f"simulated, {scheme.name}", evaluate(simulated, windows, size, reference=exact))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
