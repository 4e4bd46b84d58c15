"""Methods of compression side by side: what each keeps of a model at the same number of bits.

    python bench/compress.py --model M.gguf --text wiki.test.raw --calibrate-on wiki.train.txt --bits 4 --group 32

Every row compresses the model in memory and is compared with it on the same windows (`vivace evaluate` has the same
figures for files): perplexity, its ratio, KL divergence, same top token, and the seconds of processor time it took.
`--methods` picks rows; `--json` prints a list of objects instead of a Markdown table. `--plot FILE` draws what each row
keeps of what rounding to nearest loses; `--drawn-with FILE` adds rows that earlier runs printed with `--json`.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.containers import container_of
from vivace.compress.device import DEVICES, open_device
from vivace.compress.evaluate import EvaluationSettings, evaluate, make_executor, read_windows
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import CalibrationSettings, Recipe, TensorRule, TuningSettings
from vivace.compress.tuning import tuning_settings
from vivace.execute.native import NativeExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import VivaceError
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import TensorFormat

METHODS: dict[str, dict[str, object]] = {
    "nearest": {"scales": "minmax"},
    "clipping": {"scales": "mse"},
    "importance": {"scales": "mse", "importance": True},
    "awq": {"scales": "mse", "importance": True, "folds": ("awq",)},
    "gptq": {"scales": "mse", "importance": True, "rounding": "gptq"},
    "gptq-ordered": {"scales": "mse", "importance": True, "rounding": "gptq", "act_order": False},
    "smoothquant": {"scales": "mse", "importance": True, "folds": ("smoothquant",)},
    "hadamard": {"scales": "mse", "importance": True, "folds": ("hadamard",)},
    "learned": {"scales": "mse", "importance": True, "rounding": "learned"},
    "descent": {"scales": "mse", "importance": True, "rounding": "descent"},
    "hadamard+gptq": {"scales": "mse", "importance": True, "folds": ("hadamard",), "rounding": "gptq"},
    "awq+descent": {"scales": "mse", "importance": True, "folds": ("awq",), "rounding": "descent"},
    "drift": {"scales": "mse", "importance": True, "rounding": "descent", "drift_correction": True},
    "awq+drift": {
        "scales": "mse",
        "importance": True,
        "folds": ("awq",),
        "rounding": "descent",
        "drift_correction": True,
    },
    "awq+gptq": {"scales": "mse", "importance": True, "folds": ("awq",), "rounding": "gptq"},
}
_TUNING = TuningSettings()
TUNED = "+tuned"  # after a method's name: scales and norms are tuned end to end afterwards (torch)
METHODS |= {name + TUNED: fields for name, fields in list(METHODS.items()) if "smoothquant" not in name}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Methods of compression side by side.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to evaluate on")
    parser.add_argument("--calibrate-on", type=Path, action="append", required=True, help="text to calibrate on")
    parser.add_argument("--methods", nargs="*", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--format", type=TensorFormat, default=TensorFormat.Q4_0, help="of the layers' matrices")
    parser.add_argument("--bits", type=int, help="fewer bits than the format has")
    parser.add_argument("--group", type=int, default=32, help="columns that share a scale; 0: a row")
    parser.add_argument("--group-rows", type=int, default=1, help="rows that share it as well; 0: all")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=sorted(DEVICES), help="where methods run")
    parser.add_argument("--activation-bits", type=int, choices=(8, 12), default=12, help="8: W8A8 and W4A8")
    parser.add_argument("--tuning-samples", type=int, default=_TUNING.samples, help="windows of rows '+tuned'")
    parser.add_argument("--tuning-epochs", type=int, default=_TUNING.epochs)
    parser.add_argument("--tuning-rate", type=float, default=_TUNING.rate)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, help="a PNG of the share of the loss that each row recovers")
    parser.add_argument("--drawn-with", type=Path, nargs="*", default=[], help="rows of earlier runs (--json)")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """One row a method, the model itself first."""
    model = open_model(options.model)
    assert model.vocabulary is not None, "the model file has no vocabulary"
    tokenizer = build_tokenizer(model.vocabulary)
    settings = EvaluationSettings(num_windows=options.windows, num_threads=options.threads)
    windows = read_windows(model, options.text, settings)
    texts = read_texts(options.calibrate_on)
    samples = draw_windows(texts, tokenizer, CalibrationSettings(samples=options.samples), None)
    tuning = TuningSettings(options.tuning_samples, options.tuning_epochs, options.tuning_rate)
    more = tuning_settings(CalibrationSettings(), tuning)
    tuning_samples = draw_windows(texts, tokenizer, more, None)
    reference = make_executor(model, settings)
    rules = (
        TensorRule("embed.weight", TensorFormat.Q8_0),
        TensorRule("lm_head.weight", TensorFormat.Q8_0),
        TensorRule("layers.*", options.format, options.bits, options.group, group_rows=options.group_rows),
    )
    rows = []
    for name in options.methods:
        recipe = Recipe(name, rules, **METHODS[name], tuning=tuning if name.endswith(TUNED) else None)
        started = time.process_time()
        compressed = compress_weights(
            model.spec,
            model.weights,
            recipe,
            samples,
            device=open_device(options.device),
            tuning_samples=tuning_samples,
        )
        seconds = time.process_time() - started
        executor = NativeExecutor(
            build_graph(compressed.spec),  # a rotated model is another one
            compressed.weights,
            num_blocks=-(-settings.window_tokens // BLOCK_SIZE),
            num_threads=options.threads,
            activation_bits=options.activation_bits,
        )
        figures = evaluate(executor, windows, compressed.weights.num_bytes(), reference=reference)
        bits = options.bits or container_of(options.format).bits
        rows.append({"method": name, "bits": bits, "cpu_s": seconds, **figures.as_dict()})
        if compressed.tuning is not None:
            rows[-1]["tuning"] = asdict(compressed.tuning)
        if not options.json:
            print_row(rows[-1], first=len(rows) == 1)
    return rows


def print_row(row: dict[str, object], *, first: bool) -> None:
    """A line of the Markdown table, under its head when it is the first."""
    if first:
        print(f"perplexity of the model itself: {row['reference_ppl']:.3f}\n")
        print("| method | perplexity | ratio | KL divergence | same top token | MB | CPU s |")
        print("|---|---|---|---|---|---|---|")
    print(
        f"| {row['method']} | {row['ppl']:.3f} | {row['ppl_ratio']:.4f} ± {row['ppl_ratio_error']:.4f} "
        f"| {row['kld']:.4f} ± {row['kld_error']:.4f} | {row['same_top']:.1%} | {row['bytes'] / 1e6:.1f} "
        f"| {row['cpu_s']:.0f} |",
        flush=True,
    )


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Bars for each number of bits: the share of the loss of rounding to nearest that each method recovers."""
    from matplotlib.figure import Figure

    widths = sorted({row["bits"] for row in rows}, reverse=True)
    counts = [sum(row["bits"] == bits for row in rows) for bits in widths]
    figure = Figure(figsize=(8, 1.2 + 0.34 * sum(counts)), layout="constrained")
    for axes, bits in zip(figure.subplots(len(widths), height_ratios=counts, squeeze=False)[:, 0], widths, strict=True):
        mine = [row for row in rows if row["bits"] == bits]
        nearest = next(row for row in mine if row["method"] == "nearest")
        others = sorted((row for row in mine if row is not nearest), key=lambda row: -row["kld"])
        for place, row in enumerate(others):
            lost = nearest["ppl_ratio"] - 1
            shares = (1 - (row["ppl_ratio"] - 1) / lost, 1 - row["kld"] / nearest["kld"])
            error = row["ppl_ratio_error"] / lost
            drawn = [
                axes.barh(place + 0.18, 100 * shares[0], 0.34, xerr=100 * error, color="#4477aa", ecolor="#99aabb"),
                axes.barh(place - 0.18, 100 * shares[1], 0.34, color="#ee9944"),
            ]
        axes.set_yticks(range(len(others)), [str(row["method"]) for row in others])
        axes.set_xlim(0, 100)
        axes.set_title(f"{bits} bits: recovered of what rounding to nearest loses, %", fontsize=10)
        axes.legend(drawn, ["perplexity, one standard error", "KL divergence"], fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def main(arguments: list[str]) -> int:
    """Print the rows."""
    options = parse(arguments)
    try:
        rows = measure(options)
    except (VivaceError, OSError) as error:
        print(f"compress: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(rows))
    if options.plot is not None:
        draw([*(row for file in options.drawn_with for row in json.loads(file.read_text())), *rows], options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
