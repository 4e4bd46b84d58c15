"""How near each op of a model comes to what the machine allows: its floor, the time it took, and their ratio.

The floor of an op is the longer of two times: its bytes over the rate they can be read at, and its operations over the
peak of the instructions that compute them. Weights, keys and values count at the rate of memory, since a model does not
stay in a cache; rows that ops pass on count at the rate of the caches. Nothing can be faster; most floors cannot be
reached, since they leave out everything but bytes and multiplications.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vivace.types.step import BLOCK_SIZE, ForwardBatch
from vivace.types.weights import TensorFormat

if TYPE_CHECKING:
    from vivace.execute.lowering import CoreGraph, CoreOp
    from vivace.execute.native import NativeExecutor
    from vivace.files.open import LoadedModel

_KV_BYTES = 2  # of a number in the default format of keys and values
_KINDS = {TensorFormat.F32: "f32", TensorFormat.F16: "bf16", TensorFormat.BF16: "bf16"}  # others: int8


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine does in a second with the threads of the model.

    Args:
        memory: bytes read from a buffer of the model's size.
        cache: bytes read from one that stays in the caches.
        peaks: operations, by kind of number.
    """

    memory: float
    cache: float
    peaks: Mapping[str, float]

    def compute_s(self, operations: float, kind: str) -> float:
        """Least time of so many operations; a kind without instructions of its own is computed in float32."""
        peak = self.peaks.get(kind) or self.peaks.get("f32") or 0.0
        return operations / peak if peak else 0.0


@dataclass(frozen=True, slots=True)
class StepShape:
    """`sequences` that compute `rows` tokens each, at positions from `start` on."""

    sequences: int
    rows: int
    start: int

    @property
    def name(self) -> str:
        """As the table calls it."""
        if self.rows > 1:
            return f"prompt of {self.rows}"
        return f"{self.sequences} stream{'s' if self.sequences > 1 else ''} at position {self.start}"

    def num_rows(self, core: "CoreGraph", buffer: str) -> int:
        """Rows of a buffer: one a sequence where only those that bring logits are in it."""
        return self.sequences * (1 if core.buffers[buffer].selected else self.rows)

    @property
    def num_pairs(self) -> int:
        """Pairs of a row and a position it sees."""
        return self.sequences * sum(range(self.start + 1, self.start + self.rows + 1))

    @property
    def num_blocks(self) -> int:
        """KV blocks of a sequence."""
        return -(-(self.start + self.rows) // BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class OpGain:
    """Seconds of all ops of one kind in a step of one shape."""

    step: str
    op: str
    floor_s: float
    reached_s: float

    @property
    def ratio(self) -> float:
        """Share of the limit that was reached; 0 where nothing took time."""
        return self.floor_s / self.reached_s if self.reached_s else 0.0


def step_shapes(context_length: int) -> list[StepShape]:
    """One stream and sixteen that write, and a prompt, as far as the context holds them."""
    start = min(256, context_length - 1)
    return [StepShape(1, 1, start), StepShape(16, 1, start), StepShape(1, min(512, context_length), 0)]


def measure_gains(loaded: "LoadedModel", rates: Rates, threads: int, repeats: int) -> list[OpGain]:
    """Run each shape of step and compare every kind of op with its floor.

    Raises:
        VivaceError: the model cannot be run.
    """
    from vivace.execute.native import NativeExecutor
    from vivace.execute.native_program import LinearSettings, lower_fused
    from vivace.graph.build import build_graph

    graph = build_graph(loaded.spec)
    shapes = step_shapes(loaded.spec.context_length)
    num_blocks = max(shape.sequences * shape.num_blocks for shape in shapes)
    core = lower_fused(graph, loaded.weights, LinearSettings(12))
    floors = {shape: dict(op_floors(core, loaded, shape, rates)) for shape in shapes}
    executor = NativeExecutor(graph, loaded.weights, num_blocks=num_blocks, max_rows=512, num_threads=threads)
    gains = []
    for shape in shapes:
        reached = _reached(core, executor, shape, repeats)
        gains += [OpGain(shape.name, op, floor_s, reached[op]) for op, floor_s in floors[shape].items()]
    return gains


def _reached(core: "CoreGraph", executor: "NativeExecutor", shape: StepShape, repeats: int) -> dict[str, float]:
    """Seconds of each kind of op, the least of several steps."""
    batch = batch_of(shape, executor.vocab_size)
    executor.forward(batch)
    best: dict[str, float] = {}
    for _ in range(repeats):
        executor.time_ops()
        executor.forward(batch)
        told = [seconds for name, seconds in executor.op_seconds() if name != "observe"]
        taken: dict[str, float] = {}
        for op, seconds in zip(core.ops, told, strict=True):
            name = label(op, core)
            taken[name] = taken.get(name, 0.0) + seconds
        if not best or sum(taken.values()) < sum(best.values()):
            best = taken
    return best


def batch_of(shape: StepShape, vocab_size: int) -> ForwardBatch:
    """Random tokens in a step of that shape; what lies before them in the pool is whatever is there."""
    count = shape.sequences * shape.rows
    draw = np.random.default_rng(count)
    ends = np.arange(shape.sequences + 1) * shape.rows
    return ForwardBatch(
        token_ids=draw.integers(0, vocab_size, count).astype(np.int32),
        positions=np.tile(np.arange(shape.start, shape.start + shape.rows), shape.sequences).astype(np.int32),
        sequence_starts=ends.astype(np.int32),
        block_tables=np.arange(shape.sequences * shape.num_blocks, dtype=np.int32).reshape(shape.sequences, -1),
        logit_rows=(ends[1:] - 1).astype(np.int32),
    )


def label(op: "CoreOp", core: "CoreGraph") -> str:
    """What ops that differ in their layer alone are called together. The gate counts with the linear that feeds it: of
    many rows both are done at once.
    """
    if core.output in op.writes:
        return "logits"
    if op.name == "gated":
        return next(label(other, core) for other in core.ops if op.reads[0] in other.writes)
    names = weights_of(op)
    return f"{op.name} {'+'.join(name.split('.')[-2] for name in names)}" if names else op.name


def weights_of(op: "CoreOp") -> list[str]:
    """The matrices of a linear."""
    if op.name != "linear":
        return []
    segments = op.arguments[2]
    assert isinstance(segments, tuple)
    return [str(segment[0]) for segment in segments if isinstance(segment, tuple)]


def op_floors(core: "CoreGraph", loaded: "LoadedModel", shape: StepShape, rates: Rates) -> Iterator[tuple[str, float]]:
    """Each kind of op with the least seconds of all ops of it."""
    sums: dict[str, float] = {}
    for op in core.ops:
        name = label(op, core)
        sums[name] = sums.get(name, 0.0) + _floor_s(op, core, loaded, shape, rates)
    yield from sums.items()


def _floor_s(op: "CoreOp", core: "CoreGraph", loaded: "LoadedModel", shape: StepShape, rates: Rates) -> float:
    passed = sum(core.buffers[name].row_bytes * shape.num_rows(core, name) for name in (*op.reads, *op.writes))
    read_s, compute_s = passed / rates.cache, 0.0
    if op.name == "attention":
        attention, window = loaded.spec.attention, op.arguments[4]
        assert isinstance(window, int)
        length = min(shape.start + shape.rows, window) if window else shape.start + shape.rows
        num_pairs = min(shape.num_pairs, shape.sequences * shape.rows * window) if window else shape.num_pairs
        width = 2 * attention.num_kv_heads * attention.head_dim
        read_s += shape.sequences * length * width * _KV_BYTES / rates.memory
        compute_s = rates.compute_s(4.0 * num_pairs * attention.num_heads * attention.head_dim, "bf16")
    for name in weights_of(op):
        info = loaded.weights.info(name)
        rows = shape.num_rows(core, op.writes[0])
        read_s += info.num_bytes / rates.memory
        compute_s += rates.compute_s(2.0 * rows * info.shape[0] * info.shape[1], _KINDS.get(info.format, "int8"))
    return max(read_s, compute_s)


def as_gain_lines(gains: list[OpGain]) -> list[str]:
    """A table: for each shape of step its ops, and all of them together."""
    lines = []
    for step in dict.fromkeys(gain.step for gain in gains):
        mine = [gain for gain in gains if gain.step == step]
        total = OpGain(step, "all", sum(one.floor_s for one in mine), sum(one.reached_s for one in mine))
        lines.append(f"{step}".ljust(32) + "floor, ms".rjust(11) + "reached, ms".rjust(13) + "of the limit".rjust(14))
        for gain in [*mine, total]:
            cells = f"{1e3 * gain.floor_s:.3f}".rjust(11) + f"{1e3 * gain.reached_s:.3f}".rjust(13)
            lines.append(f"  {gain.op}".ljust(32) + cells + f"{100 * gain.ratio:.0f} %".rjust(14))
    return lines
