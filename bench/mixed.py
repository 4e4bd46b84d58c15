"""Mixed precision by measurement against the chapter's layout, uniform formats and llama.cpp's own layouts.

    python bench/mixed.py --model M.gguf --text wiki.test.raw --calibrate-on FOLDER --sensitivity S.json

Every row is the same weights in another layout, compared with the model on the same windows. `mixed@ROW` is what the
allocation makes of no more bytes than ROW has, with the methods of `--base`; uniform and chapter rows use the same
methods. `--ggml LIB` names a shared library that exports ggml_quantize_chunk (xllamacpp's, which `vivace bench compare
--install` puts into the cache): llama.cpp's own rounding then makes the rows of its Q4_0 and Q4_K_M layouts, with and
without an importance matrix. `--sensitivity` keeps the measured sensitivities in a file for the next run.
"""

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vivace.compress.allocate import Option
from vivace.compress.calibration_text import draw_windows, read_texts
from vivace.compress.device import DEVICES, open_device
from vivace.compress.evaluate import EvaluationSettings, evaluate, make_executor, read_windows
from vivace.compress.importance import input_importance
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, CalibrationSettings, Recipe, TensorRule, TuningSettings
from vivace.compress.save import SENSITIVITY_SAMPLES, SENSITIVITY_TOKENS
from vivace.compress.sensitivity import (
    PartSensitivity,
    count_weights,
    formats_of,
    mark_collapsing,
    measure_sensitivity,
    mixed_recipe,
    rounded_lowest,
)
from vivace.compress.stored import StoredTensor, StoredWeights
from vivace.compress.tuning import tuning_settings
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.numerics.formats import FORMATS as NUMBER_FORMATS
from vivace.text.build import build_tokenizer
from vivace.types.errors import VivaceError
from vivace.types.step import BLOCK_SIZE
from vivace.types.weights import TensorFormat

MIXED = "mixed@"
GGML_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # llama.cpp's, for rows that 256 does not divide


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows share."""

    options: argparse.Namespace
    model: LoadedModel
    windows: list[Tokens]
    samples: list[Tokens]
    importance: dict[str, np.ndarray]
    tuning_samples: list[Tokens]
    parts: list[PartSensitivity]

    def compress(self, recipe: Recipe) -> StoredWeights:
        """The model by a recipe."""
        return compress_weights(
            self.model.spec,
            self.model.weights,
            recipe,
            self.samples,
            device=open_device(self.options.device),
            tuning_samples=self.tuning_samples,
        ).weights


def measured(options: argparse.Namespace) -> Bench:
    """Open, draw, and measure sensitivity or read it."""
    model = open_model(options.model)
    assert model.vocabulary is not None, "the model file has no vocabulary"
    settings = EvaluationSettings(num_windows=options.windows, num_threads=options.threads)
    windows = read_windows(model, options.text, settings)
    texts, tokenizer = read_texts(options.calibrate_on), build_tokenizer(model.vocabulary)
    samples = draw_windows(texts, tokenizer, CalibrationSettings(samples=options.samples), None)
    base = base_recipe(options)
    tuning = base.tuning or TuningSettings()
    tuning_samples = draw_windows(texts, tokenizer, tuning_settings(CalibrationSettings(), tuning), None)
    importance = input_importance(model.spec, model.weights, samples)
    if options.sensitivity.exists():
        parts = [_part(row) for row in json.loads(options.sensitivity.read_text())]
    else:
        few = [sample[:SENSITIVITY_TOKENS] for sample in samples[: options.sensitivity_windows]]
        started = time.time()
        device = open_device(options.device)
        lowest = rounded_lowest(model.spec, model.weights, base, samples, device=device)
        parts = measure_sensitivity(
            model.spec,
            model.weights,
            few,
            _say,
            importance=importance,
            lowest=lowest,
            num_threads=options.threads,
        )
        print(f"sensitivity measured in {time.time() - started:.0f} s", file=sys.stderr)
        options.sensitivity.write_text(json.dumps([asdict(part) for part in parts]))
    return Bench(options, model, windows, samples, importance, tuning_samples, parts)


def _say(done: int, total: int, what: str) -> None:
    if done % 10 == 0:
        print(f"{done}/{total} {what}", file=sys.stderr, flush=True)


def _part(row: dict) -> PartSensitivity:
    options = tuple(Option(**option) for option in row.pop("options"))
    rows = row.pop("rows", None)
    rest = {**row, "matrices": tuple(row["matrices"]), "options": options}
    return PartSensitivity(**rest, rows=None if rows is None else tuple(rows))


def base_recipe(options: argparse.Namespace) -> Recipe:
    """Whose methods all rows use."""
    base = PRESETS[options.base]
    return replace(base, tuning=TuningSettings()) if options.tuned else base


def uniform(format: TensorFormat, base: Recipe) -> Recipe:
    """Every matrix in one format."""
    return replace(base, name=str(format), rules=(TensorRule("*", format),))


def more_bits(layer: int, num_layers: int) -> bool:
    """Which layers llama.cpp gives more bits in its mixed layouts (use_more_bits)."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def llama_cpp_format(layout: str, name: str, columns: int, num_layers: int) -> str:
    """The format that llama.cpp's quantiser gives a matrix: Q4_0 and Q4_K_M of a model with tied embeddings."""
    if name == "embed.weight":
        wanted = "Q6_K"
    elif layout == "Q4_0":
        wanted = "Q4_0"
    else:
        raised = name.endswith(("attn.v.weight", "mlp.down.weight")) and more_bits(int(name.split(".")[1]), num_layers)
        wanted = "Q6_K" if raised else "Q4_K"
    return FALLBACKS[wanted] if wanted in FALLBACKS and columns % 256 else wanted


def llama_cpp_weights(bench: Bench, layout: str, *, imatrix: bool) -> StoredWeights:
    """The model as llama.cpp rounds it."""
    library = ctypes.CDLL(str(bench.options.ggml))
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, *([ctypes.c_void_p] * 2), *([ctypes.c_int64] * 3), ctypes.c_void_p]
    weights, spec = bench.model.weights, bench.model.spec
    stored = {}
    for name in weights.names():
        shape = weights.info(name).shape
        if len(shape) != 2:
            continue
        values = np.ascontiguousarray(weights.dequantize(name))
        format = TensorFormat(llama_cpp_format(layout, name, shape[1], spec.num_layers))
        row = NUMBER_FORMATS[format]
        data = np.zeros(values.size // row.block_elements * row.block_bytes, np.uint8)
        known = bench.importance.get(name) if imatrix else None
        matrix = None if known is None else np.ascontiguousarray(known, dtype=np.float32)
        used = quantize(
            GGML_TYPES[format],
            values.ctypes.data,
            data.ctypes.data,
            0,
            shape[0],
            shape[1],
            None if matrix is None else matrix.ctypes.data,
        )
        assert used == data.size, (name, format, used, data.size)
        stored[name] = StoredTensor(shape, format, data)
    return StoredWeights(stored, weights)


def matrix_bytes(weights: StoredWeights) -> int:
    """Bytes of the matrices, which is what a budget counts."""
    return sum(weights.info(name).num_bytes for name in weights.names() if len(weights.info(name).shape) == 2)


def run(bench: Bench) -> None:
    """Print a row for each layout, and under it what mixed precision makes of its bytes."""
    base = base_recipe(bench.options)
    makers: dict[str, Callable[[], StoredWeights]] = {
        "Q4_64": lambda: bench.compress(uniform(TensorFormat.Q4_64, base)),
        "Q5_64": lambda: bench.compress(uniform(TensorFormat.Q5_64, base)),
        "Q6_64": lambda: bench.compress(uniform(TensorFormat.Q6_64, base)),
        "Q4_0": lambda: bench.compress(uniform(TensorFormat.Q4_0, base)),
        "Q5_0": lambda: bench.compress(uniform(TensorFormat.Q5_0, base)),
        "Q6_0": lambda: bench.compress(uniform(TensorFormat.Q6_0, base)),
        "Q8_0": lambda: bench.compress(uniform(TensorFormat.Q8_0, base)),
        "int4": lambda: bench.compress(base),
        "chapter": lambda: bench.compress(replace(base, rules=PRESETS["chapter"].rules)),
        "llama.cpp-Q4_0": lambda: llama_cpp_weights(bench, "Q4_0", imatrix=False),
        "llama.cpp-Q4_0-imatrix": lambda: llama_cpp_weights(bench, "Q4_0", imatrix=True),
        "llama.cpp-Q4_K_M": lambda: llama_cpp_weights(bench, "Q4_K_M", imatrix=False),
        "llama.cpp-Q4_K_M-imatrix": lambda: llama_cpp_weights(bench, "Q4_K_M", imatrix=True),
    }
    num_weights = count_weights(bench.model.spec, bench.parts)
    sizes: dict[int, float] = {}
    for name in bench.options.rows:
        if name.startswith(MIXED):
            print_mixed(bench, name, float(name.removeprefix(MIXED)), base)
            continue
        weights = makers[name]()
        size = matrix_bytes(weights)
        bits = 8 * size / num_weights
        loss = print_row(bench, name, weights, bits)
        if size not in sizes and not name.startswith(tuple(bench.options.no_mixed)):
            try:
                sizes[size] = print_mixed(bench, f"{MIXED}{name}", bits, base)
            except VivaceError as error:
                print(f"{MIXED}{name}: {error}", flush=True)
        if size in sizes:
            print(f"    KL divergence {1 - sizes[size] / loss:.0%} under {name}'s", flush=True)


def print_mixed(bench: Bench, name: str, bits: float, base: Recipe) -> float:
    """The row of what mixing makes of so many bits; returns the KL divergence."""
    recipe, allocation = mixed_recipe(bench.model.spec, bench.parts, bits, base)
    real = 8 * allocation.num_bytes / count_weights(bench.model.spec, bench.parts)
    return print_row(bench, name, bench.compress(recipe), real)


def print_row(bench: Bench, name: str, weights: StoredWeights, bits: float) -> float:
    """Evaluate and print; returns the KL divergence."""
    blocks = -(-len(bench.windows[0]) // BLOCK_SIZE)
    executor = NativeExecutor(
        build_graph(bench.model.spec), weights, num_blocks=blocks, num_threads=bench.options.threads
    )
    reference = make_executor(bench.model, EvaluationSettings(num_threads=bench.options.threads))
    figures = evaluate(executor, bench.windows, weights.num_bytes(), reference=reference)
    print(
        f"| {name} | {bits:.2f} | {figures.bytes / 1e6:.1f} | {figures.ppl_ratio:.4f} ± {figures.ppl_ratio_error:.4f} "
        f"| {figures.kld:.4f} ± {figures.kld_error:.4f} | {figures.same_top:.1%} |",
        flush=True,
    )
    assert figures.kld is not None
    return figures.kld


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Mixed precision against other layouts of the same weights.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to evaluate on")
    parser.add_argument("--calibrate-on", type=Path, action="append", required=True)
    parser.add_argument("--sensitivity", type=Path, required=True, help="a JSON file, made when it is missing")
    parser.add_argument("--ggml", type=Path, help="a library with ggml_quantize_chunk, for the rows of llama.cpp")
    parser.add_argument("--base", default="int4-awq", choices=sorted(PRESETS), help="whose methods all rows use")
    parser.add_argument("--tuned", action="store_true", help="scales are tuned end to end as well (torch)")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=["Q5_0", "chapter", "llama.cpp-Q4_0", "llama.cpp-Q4_K_M"],
        help="layouts, or mixed@5.5: a mix of so many bits a weight",
    )
    parser.add_argument("--no-mixed", nargs="*", default=["Q8_0"], help="rows that get no mixed row beside them")
    parser.add_argument("--device", default="cpu", choices=sorted(DEVICES), help="where methods run")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--sensitivity-windows", type=int, default=SENSITIVITY_SAMPLES)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    bench = measured(options)
    for part in mark_collapsing(bench.parts):
        if part.collapses:
            print(f"collapses: {part.evidence}")
    formats = ", ".join(formats_of(bench.model.spec))
    print(f"formats: {formats}\n\n| layout | bits | MB | ratio | KL divergence | same top |\n|---|---|---|---|---|---|")
    run(bench)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
