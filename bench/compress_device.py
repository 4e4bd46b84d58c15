"""One transformer block compressed on numpy, torch on the CPU and torch on CUDA: seconds, and how far they agree.

    PYTHONPATH=src python bench/compress_device.py --width 2048 --recipes awq awq+gptq learned
    PYTHONPATH=src python bench/compress_device.py --width 8192 --devices cuda

A Llama-shaped block of random weights with uneven channels, random tokens. Needs numpy, and torch for its rows, and no
compiled core. `same bytes` is the share of a file's bytes that are those of the first device; `error` is the squared
error of the compressed block's logits on tokens that were not calibrated on, relative to that of the first device.
"""

import argparse
import importlib.util
import sys
import time
import types

import numpy as np

from vivace.compress.device import Device, open_device
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.statistics import CalibrationWalk, layer_segments
from vivace.compress.stored import StoredTensor, StoredWeights, store_floats
from vivace.graph.build import build_graph
from vivace.graph.weights import weight_shapes
from vivace.types.errors import ConfigError
from vivace.types.model import AttentionSpec, ModelSpec, RopeSpec
from vivace.types.weights import TensorFormat, WeightSource

RULES = (TensorRule("layers.*", TensorFormat.Q4_0),)
RECIPES: dict[str, dict[str, object]] = {
    "clipping": {},
    "awq": {"folds": ("awq",), "importance": True},
    "gptq": {"rounding": "gptq", "importance": True},
    "awq+gptq": {"folds": ("awq",), "rounding": "gptq", "importance": True},
    "descent": {"rounding": "descent", "importance": True},
    "learned": {"rounding": "learned", "importance": True},
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="One block compressed on several devices.")
    parser.add_argument("--width", type=int, default=2048, help="of the residual stream; a multiple of 128")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["awq", "awq+gptq", "learned"])
    parser.add_argument("--devices", nargs="+", default=["cpu", "torch", "cuda"], help="those not there are left out")
    return parser.parse_args(arguments)


def block_spec(width: int) -> ModelSpec:
    """One layer in the proportions of Llama 3: heads of 128, a quarter as many for keys, 3.5 times as wide inside."""
    heads = width // 128
    rope = RopeSpec(base=500000.0, dim=128, interleaved=False)
    attention = AttentionSpec(heads, max(heads // 4, 1), 128, 128**-0.5, rope, (None,))
    return ModelSpec("llama", 1024, width, 1, width * 7 // 2, 4096, 1e-5, "silu", attention, tied_embeddings=False)


def block_weights(spec: ModelSpec) -> StoredWeights:
    """Random matrices; norms are log-normal, so that a few channels carry most of every input."""
    generator, tensors = np.random.default_rng(0), dict[str, StoredTensor]()
    for name, shape in weight_shapes(spec).items():
        values = generator.standard_normal(shape, dtype=np.float32)
        values = values / np.float32(np.sqrt(shape[-1])) if len(shape) > 1 else np.exp(values)
        tensors[name] = store_floats(values, TensorFormat.F32)
    return StoredWeights(tensors)


def logits(spec: ModelSpec, weights: WeightSource, windows: list[np.ndarray], device: Device) -> np.ndarray:
    """What the block says of all tokens of the windows."""
    graph = build_graph(spec)
    walk, segments = CalibrationWalk(graph, windows, device), layer_segments(graph)
    for segment in segments:
        walk.advance(segment, weights.dequantize)
    return walk.outputs()


def timed(options: argparse.Namespace, spec: ModelSpec, weights: WeightSource, devices: dict[str, Device]) -> None:
    """Print a row for each recipe and device."""
    generator = np.random.default_rng(1)
    draw = [generator.integers(0, spec.vocab_size, options.tokens).astype(np.int32) for _ in range(options.samples + 2)]
    samples, fresh = draw[2:], draw[:2]
    last = next(reversed(devices.values()))
    exact = logits(spec, weights, fresh, last)
    print("| recipe | device | seconds | same bytes | error | squared error of logits |\n|---|---|---|---|---|---|")
    for name in options.recipes:
        first: tuple[StoredWeights, float] | None = None
        for label, device in devices.items():
            started = time.perf_counter()
            kept = compress_weights(spec, weights, Recipe(name, RULES, **RECIPES[name]), samples, device=device).weights
            seconds = time.perf_counter() - started
            error = float(np.square(logits(spec, kept, fresh, last) - exact).mean())
            first = first or (kept, error)
            same = np.mean([np.mean(kept.raw(n) == first[0].raw(n)) for n in kept.names() if n.startswith("layers.")])
            row = f"| {name} | {label} | {seconds:.2f} | {same:.2%} | {error / first[1]:.4f} | {error:.3e} |"
            print(row, flush=True)


def stand_in_for_gguf() -> None:
    """Lets the bench run where the gguf package is not: all that is asked of it here is to read Q4_0 back."""
    if importlib.util.find_spec("gguf") is not None:
        return

    def dequantize(row: np.ndarray, _kind: str) -> np.ndarray:
        blocks = row.reshape(-1, 18)
        scales, nibbles = blocks[:, :2].copy().view("<f2").astype(np.float32), blocks[:, 2:]
        codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
        return (codes * scales).reshape(1, -1)

    module = types.ModuleType("gguf")
    module.GGMLQuantizationType = {"Q4_0": "Q4_0"}
    module.quants = types.SimpleNamespace(dequantize=dequantize)
    sys.modules["gguf"] = module


def main(arguments: list[str]) -> int:
    """Print the table."""
    options = parse(arguments)
    stand_in_for_gguf()
    devices = {}
    for name in options.devices:
        try:
            devices[name] = open_device(name)
        except ConfigError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
    small = block_spec(128)
    for device in devices.values():  # libraries load what they need on the first use
        compress_weights(
            small, block_weights(small), Recipe("warm", RULES, rounding="gptq"), [np.arange(64)], device=device
        )
    spec = block_spec(options.width)
    timed(options, spec, block_weights(spec), devices)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
