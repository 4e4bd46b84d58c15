"""The embedding in fewer bits, where it is the head too: ways to round it, all else as in the source.

    python bench/embedding.py --model M.gguf --text wiki.test.raw --calibrate-on wiki.utf8 --calibrate-on c4.utf8

`mse` is least squares over the weights, `weighed` over the weights by E[x^2] of what the head reads, `gptq` as recipes
with GPTQ do it (`compress/ends.py`). "Smaller" is the tensors' size beside float32 with layers in Q4_0.
"""

import argparse
import sys
from pathlib import Path

from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.containers import container_of
from vivace.compress.ends import EMBEDDING, round_in_pieces, with_ridge
from vivace.compress.evaluate import EvaluationSettings, evaluate, read_windows
from vivace.compress.gptq import factorize
from vivace.compress.layout import plan_layout
from vivace.compress.methods import RoundingTask
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule
from vivace.compress.statistics import CalibrationWalk, InputStatistics, layer_segments
from vivace.compress.stored import StoredWeights, store_quantized
from vivace.execute.native import NativeExecutor
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.graph.ops import Linear
from vivace.text.build import build_tokenizer
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import TensorFormat

FORMATS = (TensorFormat.Q5_0, TensorFormat.Q5_1, TensorFormat.Q6_0, TensorFormat.Q8_0)
WAYS = {"mse": ("nearest", False), "weighed": ("nearest", True), "gptq": ("gptq", True)}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Ways to round an embedding that is the head too.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to evaluate on")
    parser.add_argument("--calibrate-on", type=Path, action="append", required=True)
    parser.add_argument("--formats", nargs="+", choices=[str(format) for format in FORMATS], default=FORMATS)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    return parser.parse_args(arguments)


def head_inputs(model: LoadedModel, options: argparse.Namespace) -> InputStatistics:
    """What the head reads on the calibration text."""
    assert model.vocabulary is not None, "the model file has no vocabulary"
    tokenizer, settings = build_tokenizer(model.vocabulary), CalibrationSettings(samples=options.samples)
    graph = build_graph(model.spec)
    walk = CalibrationWalk(graph, draw_windows(read_texts(options.calibrate_on), tokenizer, settings, None))
    *before, last = layer_segments(graph)
    for segment in before:
        walk.advance(segment, model.weights.dequantize)
    head = next(op for op in last if isinstance(op, Linear))
    return with_ridge(walk.observe(last, model.weights.dequantize, lambda _: True)[head.x], EMBEDDING)


def smaller(model: LoadedModel, format: TensorFormat) -> float:
    """Float32 over the layout with layers in Q4_0."""
    recipe = Recipe("size", (TensorRule(EMBEDDING, format), TensorRule("*", TensorFormat.Q4_0)))
    plans = plan_layout(model.spec, model.weights, recipe).values()
    whole = plan_layout(model.spec, model.weights, Recipe("f32", (TensorRule("*", TensorFormat.F32),))).values()
    return sum(plan.num_bytes for plan in whole) / sum(plan.num_bytes for plan in plans)


def main(arguments: list[str]) -> int:
    """Print the table."""
    options = parse(arguments)
    model = open_model(options.model)
    assert model.spec.tied_embeddings, "the embedding of this model is not its head"
    windows = read_windows(model, options.text, EvaluationSettings(num_windows=options.windows))
    inputs, values = head_inputs(model, options), model.weights.dequantize(EMBEDDING)
    assert inputs.gram is not None
    factor = factorize(inputs.gram, act_order=True)
    graph, blocks = build_graph(model.spec), -(-len(windows[0]) // BLOCK_SIZE)
    source = NativeExecutor(graph, model.weights, num_blocks=blocks)
    print("| embedding | smaller | way | perplexity ratio | KL divergence | same top |\n|---|---|---|---|---|---|")
    for format in map(TensorFormat, options.formats):
        for way, (rounding, weighs) in WAYS.items():
            importance = inputs.importance if weighs else None
            task = RoundingTask(values, container_of(format).scheme(), "mse", importance, inputs, lambda: factor)
            tensor = store_quantized(round_in_pieces(rounding, task, lambda rows: rows), format)
            candidate = NativeExecutor(graph, StoredWeights({EMBEDDING: tensor}, model.weights), num_blocks=blocks)
            found = evaluate(candidate, windows, 0, reference=source)
            print(
                f"| {format} | {smaller(model, format):.2f} x | {way} | {found.ppl_ratio:.4f} ± "
                f"{found.ppl_ratio_error:.4f} | {found.kld:.4f} | {found.same_top:.1%} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
