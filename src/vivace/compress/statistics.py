"""What calibration learns about the inputs of linears: sums over tokens, gathered by running the model layer by layer.

The walk is block-sequential: one layer's ops over all samples, then that layer is quantised, then its ops once more
with the new weights, so that later layers are calibrated on what they will really read, and only one layer's sums are
held. Runs on the reference executor's ops; owns no file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vivace.compress.arrays import Array, like, namespace, on_host
from vivace.compress.device import Device, NumpyDevice
from vivace.compress.drift import DriftSums
from vivace.compress.schemes import Floats
from vivace.execute.reference import Step
from vivace.execute.reference_attention import KeyValuePages
from vivace.execute.score import Tokens
from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear, Op
from vivace.types.step import BLOCK_SIZE, ForwardBatch

_ROWS_AT_ONCE = 2048  # tokens of one step: enough for full matrix products, few enough for memory
GetWeight = Callable[[str], Floats]


@dataclass(slots=True)
class InputStatistics:
    """Sums over the tokens that one linear input buffer was seen with.

    Attributes:
        num_tokens: rows seen.
        squares: float32 (width,), sum of x^2: the importance E[x^2] times num_tokens.
        sums: float32 (width,), sum of x.
        largest: float32 (width,), max |x|.
        gram: float32 (width, width), sum of x x^T: half the Hessian of the squared output error; None if not asked for.
        drift: how far inputs are from the source's (`drift.py`); None if not asked for.
    """

    width: int
    wants_gram: bool
    num_tokens: int = 0
    squares: Floats = field(init=False)
    sums: Floats = field(init=False)
    largest: Floats = field(init=False)
    gram: Floats | None = field(init=False)
    drift: DriftSums | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.squares, self.sums, self.largest = (np.zeros(self.width, np.float32) for _ in range(3))
        self.gram = None

    def add(self, rows: Floats, source_rows: Floats | None = None) -> None:
        """Count the rows of one batch, float32 (tokens, width), numpy's or torch's; the Gram matrix is likewise.

        `source_rows` are what the source reads at the same tokens, when drift is asked for.
        """
        xp = namespace(rows)
        self.num_tokens += len(rows)
        self.squares += on_host((rows * rows).sum(axis=0))
        self.sums += on_host(rows.sum(axis=0))
        np.maximum(self.largest, on_host(xp.amax(xp.abs(rows), axis=0)), out=self.largest)
        if self.wants_gram:
            if source_rows is None:
                product = rows.T @ rows
            else:
                self.drift = self.drift or DriftSums()
                product = self.drift.add(rows, source_rows)
            if self.gram is None:
                self.gram = product
            else:
                self.gram += product

    @property
    def importance(self) -> Floats:
        """E[x^2] of each input channel, float32 (width,); never 0, so that unseen channels still count a little."""
        mean: Floats = self.squares / np.float32(max(self.num_tokens, 1))
        mean += np.float32(1e-6) * (mean.mean() + np.float32(1e-12))
        return mean

    @property
    def mean(self) -> Floats:
        """E[x] of each input channel, float32 (width,)."""
        return self.sums / np.float32(max(self.num_tokens, 1))

    def scaled(self, factors: Floats) -> None:
        """Account for the inputs being divided by `factors` from now on."""
        self.squares /= factors * factors
        self.sums /= factors
        self.largest /= np.abs(factors)
        if self.gram is not None:
            self.gram /= like(np.outer(factors, factors), self.gram)


Statistics = dict[str, InputStatistics]
"""By the name of the buffer that linears read."""


def layer_segments(graph: Graph) -> list[tuple[Op, ...]]:
    """The op list cut where the layer changes: what comes before, each layer, what comes after."""
    segments: list[tuple[str, list[Op]]] = []
    for op in graph.ops:
        label = _layer_label(buffers_written(op)[0])
        if not segments or segments[-1][0] != label:
            segments.append((label, []))
        segments[-1][1].append(op)
    return [tuple(ops) for _, ops in segments]


class CalibrationWalk:
    """Runs samples through a model segment by segment, keeping only the buffers that later segments read.

    Args:
        graph: an op list without fused ops.
        samples: token windows, each a sequence of its own.
        device: where ops run and buffers live; numpy when None.
    """

    def __init__(self, graph: Graph, samples: Sequence[Tokens], device: Device | None = None) -> None:
        self._graph = graph
        self._device = device or NumpyDevice()
        self._batches = [as_batch(group) for group in grouped(samples)]
        self._buffers: list[dict[str, Array]] = [{} for _ in self._batches]
        num_blocks = max(batch.block_tables.size for batch in self._batches)
        self._pages = KeyValuePages.allocate(graph.spec, num_blocks)

    @property
    def num_batches(self) -> int:
        """Steps that the samples take."""
        return len(self._batches)

    def observe(
        self,
        segment: Sequence[Op],
        weight: GetWeight,
        wants_gram: Callable[[str], bool],
        source_inputs: Callable[[int], Mapping[str, Array]] | None = None,
    ) -> Statistics:
        """Statistics of every linear input of the segment; the walk stays where it is.

        Args:
            segment: ops that follow on those advanced over.
            weight: weights to run with.
            wants_gram: whether a weight needs the second moments of its inputs.
            source_inputs: what linears read in the source, by buffer, in a batch of that number; for drift.
        """
        inputs = {op.x: False for op in segment if isinstance(op, Linear)}
        for op in segment:
            if isinstance(op, Linear):
                inputs[op.x] |= wants_gram(op.weight)
        found = {name: InputStatistics(self._graph.widths[name], gram) for name, gram in inputs.items()}
        for number in range(len(self._batches)):
            expected = {} if source_inputs is None else source_inputs(number)
            for name, rows in self.inputs(number, segment, weight).items():
                found[name].add(rows, expected.get(name))
        return found

    def inputs(self, number: int, segment: Sequence[Op], weight: GetWeight) -> dict[str, Array]:
        """What the linears of a segment read in one batch, by buffer; the walk stays where it is."""
        step = Step(self._batches[number], self._pages, weight)
        names = list(dict.fromkeys(op.x for op in segment if isinstance(op, Linear)))
        last_linear = max((i for i, op in enumerate(segment) if isinstance(op, Linear)), default=0)
        after = self._device.run(segment[:last_linear], step, self._buffers[number])  # the last product is not needed
        return {name: after[name] for name in names}

    def advance(self, segment: Sequence[Op], weight: GetWeight) -> None:
        """Run the segment with its final weights and go on to the next one."""
        position = self._graph.ops.index(segment[-1]) + 1
        wanted = {name for op in self._graph.ops[position:] for name in buffers_read(op)} | {self._graph.output}
        for number, (step, buffers) in enumerate(self._steps(weight)):
            after = self._device.run(segment, step, buffers)
            self._buffers[number] = {name: after[name] for name in after if name in wanted}

    @property
    def buffers(self) -> list[dict[str, Array]]:
        """What later segments read, of each batch; enough to go on from here in another walk."""
        return self._buffers

    def resume(self, buffers: Sequence[Mapping[str, Array]]) -> None:
        """Go on where a walk with the same samples had these buffers."""
        self._buffers = [{name: self._device.put(array) for name, array in held.items()} for held in buffers]

    @property
    def batches(self) -> Sequence[ForwardBatch]:
        """The samples by steps, in order."""
        return self._batches

    def outputs(self) -> Floats:
        """Logits of all tokens of all samples, float32 (tokens, vocab_size), once everything is advanced over."""
        return np.concatenate([on_host(buffers[self._graph.output]) for buffers in self._buffers])

    def _steps(self, weight: GetWeight) -> Iterator[tuple[Step, Mapping[str, Array]]]:
        """One step a batch, and its buffers so far; all share the KV pool, as each writes before it reads."""
        for batch, buffers in zip(self._batches, self._buffers, strict=True):
            yield Step(batch, self._pages, weight), buffers


def grouped(samples: Sequence[Tokens]) -> list[list[Tokens]]:
    """Samples in groups of about `_ROWS_AT_ONCE` tokens, at least one each."""
    groups: list[list[Tokens]] = []
    rows = 0
    for sample in samples:
        if not groups or rows + len(sample) > _ROWS_AT_ONCE:
            groups.append([])
            rows = 0
        groups[-1].append(sample)
        rows += len(sample)
    return groups


def as_batch(samples: Sequence[Tokens]) -> ForwardBatch:
    """Each sample a sequence of its own."""
    lengths = [len(sample) for sample in samples]
    num_blocks = -(-max(lengths) // BLOCK_SIZE)
    return ForwardBatch(
        token_ids=np.concatenate(samples).astype(np.int32),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        sequence_starts=np.cumsum([0, *lengths], dtype=np.int32),
        block_tables=np.arange(len(samples) * num_blocks, dtype=np.int32).reshape(len(samples), num_blocks),
        logit_rows=np.arange(sum(lengths), dtype=np.int32),
    )


def _layer_label(buffer: str) -> str:
    """ "layers.3" of a buffer of layer 3, "" of any other."""
    parts = buffer.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else ""
