"""Does the calibration doctor's verdict mean anything: what it says of calibration sets, and what they cost.

    python bench/doctor.py --model M.gguf --like traffic.txt --text held-out.txt --set good=a.txt --set code=b.txt

For each set: the diagnosis against `--like`, and perplexity on `--text` after compression with it, by `--rounding` and
`--fold` in `--bits` bits and groups of `--group`.
"""

import argparse
import sys
from pathlib import Path

from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.doctor import diagnose
from vivace.compress.evaluate import EvaluationSettings, evaluate, make_executor, read_windows
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule
from vivace.execute.native import NativeExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import TensorFormat


def main(arguments: list[str]) -> int:
    """Print a row for each set."""
    parser = argparse.ArgumentParser(description="Verdicts of the calibration doctor beside what sets cost.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--like", type=Path, action="append", required=True, help="text like what is used")
    parser.add_argument("--text", type=Path, required=True, help="held-out text of the same kind")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=PATH[,PATH]", dest="sets")
    parser.add_argument("--rounding", default="gptq")
    parser.add_argument("--fold", nargs="*", default=[])
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--diagnose-only", action="store_true")
    options = parser.parse_args(arguments)
    model = open_model(options.model)
    assert model.vocabulary is not None, "the model file has no vocabulary"
    tokenizer = build_tokenizer(model.vocabulary)
    settings = EvaluationSettings(num_windows=options.windows)
    drawn = CalibrationSettings(samples=options.samples, tokens=options.tokens)
    twice = CalibrationSettings(samples=2 * options.samples, tokens=options.tokens)
    like = draw_windows(read_texts(options.like), tokenizer, twice, None)
    windows, reference = read_windows(model, options.text, settings), make_executor(model, settings)
    rules = (TensorRule("embed.weight", TensorFormat.Q8_0), TensorRule("lm_head.weight", TensorFormat.Q8_0))
    layers = TensorRule("layers.*", TensorFormat.Q4_0, options.bits, options.group)
    recipe = Recipe("one", (*rules, layers), rounding=options.rounding, folds=tuple(options.fold), importance=True)
    print(
        "| set | verdict | regret | coverage | range overlap | narrow | MMD², p | perplexity ratio | KL |", flush=True
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name, _, paths in (entry.partition("=") for entry in options.sets):
        samples = draw_windows(read_texts(map(Path, paths.split(","))), tokenizer, drawn, None)
        found = diagnose(model.spec, model.weights, tokenizer, calibration=samples, reference=like)
        cells = [
            name, "good" if found.is_good else "one-sided",
            f"{found.regret:+.1%} ({found.regret_least:+.1%})",
            f"{found.token_coverage:.0%}", f"{found.range_overlap:.0%}",
            f"{found.narrow_channels:.0%}", f"{found.distance:.3f}, {found.p_value:.3f}",
        ]  # fmt: skip
        if not options.diagnose_only:
            made = compress_weights(model.spec, model.weights, recipe, samples)
            blocks = -(-settings.window_tokens // BLOCK_SIZE)
            executor = NativeExecutor(build_graph(made.spec), made.weights, num_blocks=blocks)
            figures = evaluate(executor, windows, made.weights.num_bytes(), reference=reference)
            cells += [f"{figures.ppl_ratio:.4f} ± {figures.ppl_ratio_error:.4f}", f"{figures.kld:.4f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
        for complaint in found.complaints:
            print(f"    {complaint}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
