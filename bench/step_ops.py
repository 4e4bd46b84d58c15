"""Time of each kind of op in a step of streams that write, in each setting of activations and weights.

    python bench/step_ops.py --streams 8 16 --settings 12 8 w8

Prints milliseconds of all layers together: the least of several steps for whole steps, and for each kind of op the
median over steps. What threads wait for each other is in it.
"""

import argparse
import statistics
import time

from vivace.cli.roofline_ops import StepShape, batch_of, label
from vivace.execute.native import NativeExecutor
from vivace.execute.native_program import LinearSettings, lower_fused
from vivace.files.catalogue import resolve
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph

SETTINGS = {"12": (12, "file"), "8": (8, "file"), "w8": (8, "int8")}


def main() -> None:
    """Measure every setting in turns and print one table a number of streams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--start", type=int, default=256, help="position of the streams")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kv-format", default="f16")
    arguments = parser.parse_args()
    loaded = open_model(resolve(arguments.model))
    columns = {name: measure(loaded, name, arguments) for name in arguments.settings}
    for streams in arguments.streams:
        print_table(streams, {name: column[streams] for name, column in columns.items()})


def measure(loaded: LoadedModel, setting: str, arguments: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Milliseconds by kind of op, by streams; "step" is a whole step."""
    bits, weights = SETTINGS[setting]
    graph = build_graph(loaded.spec)
    shapes = [StepShape(count, 1, arguments.start) for count in arguments.streams]
    core = lower_fused(graph, loaded.weights, LinearSettings(bits, weights))
    executor = NativeExecutor(
        graph,
        loaded.weights,
        num_blocks=max(shape.sequences * shape.num_blocks for shape in shapes),
        max_rows=max(arguments.streams),
        num_threads=arguments.threads,
        activation_bits=bits,
        weight_format=weights,
        kv_format=arguments.kv_format,
    )
    found = {}
    for shape in shapes:
        batch = batch_of(shape, executor.vocab_size)
        steps: list[float] = []
        ops: dict[str, list[float]] = {}
        for _ in range(arguments.steps):
            begin = time.perf_counter()
            executor.forward(batch)
            steps.append(time.perf_counter() - begin)
        for _ in range(arguments.steps):
            executor.time_ops()
            executor.forward(batch)
            taken: dict[str, float] = {}
            told = [seconds for name, seconds in executor.op_seconds() if name != "observe"]
            for op, seconds in zip(core.ops, told, strict=True):
                name = label(op, core)
                taken[name] = taken.get(name, 0.0) + seconds
            for name, seconds in taken.items():
                ops.setdefault(name, []).append(seconds)
        median = {name: 1e3 * statistics.median(seconds) for name, seconds in ops.items()}
        least, middle = 1e3 * min(steps), 1e3 * statistics.median(steps)
        found[shape.sequences] = {**median, "step, median": middle, "step, least": least}
    return found


def print_table(streams: int, columns: dict[str, dict[str, float]]) -> None:
    """One line a kind of op, one column a setting."""
    print(f"{streams} streams, ms".ljust(32) + "".join(name.rjust(10) for name in columns))
    for name in next(iter(columns.values())):
        print(f"  {name}".ljust(32) + "".join(f"{column[name]:.3f}".rjust(10) for column in columns.values()))


if __name__ == "__main__":
    main()
