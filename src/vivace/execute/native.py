"""The native executor: the op list lowered, weights packed, every step one call into the C++ core.

Owns the packed weights, the KV pool and the program. Weights stay quantised: a tensor is repacked straight from the
mapped file into the layout its dot products read, and the pages of the file it came from are let go.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace import _native
from vivace.execute.native_program import (
    LinearSettings,
    ProgramParts,
    build_program,
    draw,
    forward,
    has_pairs,
    lower_fused,
    prepare,
    relay,
    start,
    turned_in,
)
from vivace.execute.widened import WidenedWeights
from vivace.graph.graph import Graph
from vivace.graph.ops import Embed, FusedLinear, Linear
from vivace.graph.passes import cut_after_layer, validate
from vivace.graph.weights import check_weights
from vivace.numerics.kv_formats import layer_formats
from vivace.numerics.row_bands import split_bands
from vivace.types.drawing import DrawNumbers
from vivace.types.errors import ConfigError, EngineError
from vivace.types.input_scheme import PLAIN_INPUTS, InputScheme, is_input_bits
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.precision import full_level
from vivace.types.run_settings import EXACT_BITS, FAST_BITS, FILE_WEIGHTS, INT8_WEIGHTS, check_weight_format
from vivace.types.step import ForwardBatch
from vivace.types.weights import WeightSource


class NativeExecutor:
    """An Executor (`types.step`) on the C++ core.

    Args:
        graph: the op list; fused here.
        weights: where weights are read from; may be closed afterwards, `close` closes it as well.
        num_blocks: KV blocks in the pool, of BLOCK_SIZE positions each.
        num_local_blocks: blocks of local layers, which then are numbered apart; None: a block holds all layers.
        max_rows: most rows of one `forward`.
        num_threads: threads that share a step; None: one for each core this process may use.
        isa: kernel table to force ("avx512bf16", "avx512", "avx2", "neon", "scalar"); None: VIVACE_ISA or the best one.
        activation_bits: 12, or 8 to 2: precision that inputs of quantised linears are rounded to. 32: not rounded,
            over float32 copies of the weights; exact, as large and as fast as a float32 model.
        kv_format: how keys and values are stored, one row of KV_FORMATS (`numerics.kv_formats`) or one a layer.
        weight_format: "file", or "int8": matrices are requantised at load (numerics/turned.py); activation_bits then
            holds for those alone that cannot be.
        inputs: what codes of inputs span, where that is not each group of 32 columns.

    Raises:
        ConfigError: a setting is out of range, or the machine has no such kernel table.
        ModelFileError: a weight is missing or has the wrong shape.
        UnsupportedModelError: a width that the kernels cannot take.
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightSource,
        *,
        num_blocks: int,
        num_local_blocks: int | None = None,
        max_rows: int = 512,
        num_threads: int | None = None,
        isa: str | None = None,
        activation_bits: int = 12,
        kv_format: str | Sequence[str] = DEFAULT_KV_FORMAT,
        weight_format: str = FILE_WEIGHTS,
        inputs: InputScheme = PLAIN_INPUTS,
    ) -> None:
        if not is_input_bits(activation_bits) and activation_bits != EXACT_BITS:
            raise ConfigError(f"activation_bits must be 2 to 8, 12 or {EXACT_BITS}, not {activation_bits}.")
        check_weight_format(weight_format)
        if activation_bits == EXACT_BITS:
            if weight_format != FILE_WEIGHTS:
                raise ConfigError("Exact weights cannot be requantised as well.", "Ask for one of the two.")
            weights = WidenedWeights(weights)
        validate(graph)
        check_weights(graph, weights)
        spec = graph.spec
        attention = spec.attention
        formats = layer_formats(kv_format, spec.num_layers, attention.head_dim, attention.local_layers)
        self._weights = weights
        self._max_rows = max_rows
        self._vocab_size = spec.vocab_size
        self._graph = graph
        self._started: ForwardBatch | None = None  # its arrays are the core's until it is finished
        self._settings = LinearSettings(activation_bits, weight_format, inputs)
        isa = isa if isa is not None else os.environ.get("VIVACE_ISA", "")
        core = lower_fused(graph, weights, self._settings, isa)
        try:
            threads = _native.ThreadPool(num_threads or len(os.sched_getaffinity(0)))
            self._kv = _native.KvPool(
                [row.name for row in formats],
                num_blocks,
                attention.num_kv_heads,
                attention.head_dim,
                [] if num_local_blocks is None else [window or 0 for window in attention.windows],
                num_local_blocks or 0,
            )
            matrices = _pack_matrices(graph, weights, threads.num_threads, turned_in(weights, weight_format))
            self._parts = ProgramParts(weights, matrices, self._kv, threads, isa)
            self._program = build_program(core, spec, self._parts, max_rows)
        except ValueError as error:
            raise ConfigError(f"The native executor cannot start: {error}.") from None
        except MemoryError:
            raise ConfigError(
                f"There is no memory for {num_blocks} KV blocks.", "Ask for a shorter context or fewer blocks."
            ) from None

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._vocab_size

    @property
    def num_blocks(self) -> int:
        """KV blocks in the pool."""
        return self._kv.num_blocks

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one KV block over all layers that are not local."""
        return self._kv.bytes_per_block

    @property
    def num_local_blocks(self) -> int:
        """Blocks of local layers in the pool."""
        return self._kv.num_local_blocks

    @property
    def bytes_per_local_block(self) -> int:
        """Bytes of one block over the local layers; 0 when there are none."""
        return self._kv.bytes_per_local_block

    @property
    def max_rows(self) -> int:
        """Most rows one `forward` takes."""
        return self._max_rows

    @property
    def isa(self) -> str:
        """Name of the kernel table in use."""
        return self._program.isa

    @property
    def num_threads(self) -> int:
        """Threads that share a step."""
        return self._program.num_threads

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """Compute the batch; the logits, float32 (L, vocab_size), are a buffer that the next call overwrites.

        Raises:
            EngineError: the batch does not fit this executor; nothing was written.
        """
        return forward(self._program, batch)

    def start(self, batch: ForwardBatch) -> None:
        """Begin with a batch and return at once; see `types.step.PatientExecutor`.

        Raises:
            EngineError: the batch does not fit this executor; nothing was written.
        """
        start(self._program, batch)
        self._started = batch

    def finish(self) -> NDArray[np.float32]:
        """The logits of the batch that was started."""
        try:
            return self._program.finish()
        finally:
            self._started = None

    def prepare(self, batch: ForwardBatch) -> None:
        """Say what would follow the step under way; see `types.relay.RelayExecutor`."""
        prepare(self._program, batch)

    def relay(
        self, rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]], stops: Sequence[NDArray[np.int32]]
    ) -> tuple[list[int], NDArray[np.float32] | None]:
        """Finish, draw, and begin with the prepared step; see `types.relay.RelayExecutor`."""
        told = relay(self._program, rows, histories, stops)
        self._started = None  # what was refused is still under way
        return told

    def hold(self) -> None:
        """Let no prepared step follow by itself; see `types.relay.RelayExecutor`."""
        self._program.hold()

    def time_ops(self) -> None:
        """From the next step on, note what each op takes; forgets what was noted."""
        self._program.time_ops()

    def op_seconds(self) -> list[tuple[str, float]]:
        """Kind and seconds of each op since `time_ops`, in order, the wait of threads for each other included.

        Those of the lowered op list (`execute.lowering`), and an "observe" after each attention that sees everything.
        """
        return self._program.op_seconds()

    def early_exit(self, num_layers: int, max_rows: int) -> "NativeEarlyExit":
        """The first layers of this model with its final norm and head, over the same weights, threads and KV pool.

        Raises:
            ConfigError: num_layers is not between 1 and the layers of the model.
        """
        graph = cut_after_layer(self._graph, num_layers)
        core = lower_fused(graph, self._weights, self._settings, self._parts.isa)
        program = build_program(core, graph.spec, self._parts, max_rows)
        return NativeEarlyExit(program, self._kv, self._vocab_size, max_rows)

    def draw(
        self, logits: NDArray[np.float32], rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """Tokens drawn from rows of logits, by the threads of a step; see `types.drawing.Drawer`.

        Raises:
            EngineError: logits of another vocabulary, or a token outside it.
        """
        return draw(self._program, logits, rows, histories)

    def observed(self) -> NDArray[np.float32]:
        """What the observed rows of the last `forward` attended to, see `types.step`."""
        return self._program.observed()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy KV blocks (source, target) in every layer that is not local."""
        for source, target in pairs:
            self._kv.copy_block(source, target)

    def copy_local_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (source, target) of the local layers."""
        for source, target in pairs:
            self._kv.copy_local_block(source, target)

    def read_block(self, block: int) -> NDArray[np.uint8]:
        """A copy of one KV block of every layer, uint8 (bytes_per_block,)."""
        return self._read(block, self._kv.bytes_per_block, is_local=False)

    def write_block(self, block: int, content: NDArray[np.uint8]) -> None:
        """Fill one KV block of every layer with what `read_block` returned.

        Raises:
            EngineError: the content has another size, or there is no such block.
        """
        self._write(block, content, is_local=False)

    def read_local_block(self, block: int) -> NDArray[np.uint8]:
        """A copy of one block of the local layers, uint8 (bytes_per_local_block,)."""
        return self._read(block, self._kv.bytes_per_local_block, is_local=True)

    def write_local_block(self, block: int, content: NDArray[np.uint8]) -> None:
        """Fill one block of the local layers with what `read_local_block` returned.

        Raises:
            EngineError: the content has another size, or there is no such block.
        """
        self._write(block, content, is_local=True)

    def _read(self, block: int, num_bytes: int, *, is_local: bool) -> NDArray[np.uint8]:
        out = np.empty(num_bytes, dtype=np.uint8)
        self._kv.read_block(block, out, is_local)
        return out

    def _write(self, block: int, content: NDArray[np.uint8], *, is_local: bool) -> None:
        try:
            self._kv.write_block(block, content, is_local)
        except ValueError as error:
            raise EngineError(f"The native executor refused a block: {error}.") from None

    def close(self) -> None:
        """Close the weight source; the core's memory goes with this object."""
        self._weights.close()


class NativeEarlyExit:
    """An Executor over the model's own pool: what it writes in its layers, the model would write too."""

    def __init__(self, program: _native.Program, kv: _native.KvPool, vocab_size: int, max_rows: int) -> None:
        self._program = program
        self.num_blocks = kv.num_blocks
        self.vocab_size = vocab_size
        self.max_rows = max_rows

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """See NativeExecutor.forward; the logits are a buffer of this exit's own."""
        return forward(self._program, batch)

    def draw(
        self, logits: NDArray[np.float32], rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]]
    ) -> list[int]:
        """See NativeExecutor.draw."""
        return draw(self._program, logits, rows, histories)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Nothing: blocks are the model's to copy."""

    def close(self) -> None:
        """Nothing: pool and weights are the model's."""


def default_kv_format(activation_bits: int | None, weight_format: str = FILE_WEIGHTS, isa: str | None = None) -> str:
    """How keys and values are kept where nobody asks: in bfloat16 where a choice for speed has rounded more than that
    does and the kernel table multiplies it in pairs, else as DEFAULT_KV_FORMAT (docs/performance.md has both figures).
    """
    is_fast = activation_bits == FAST_BITS or weight_format == INT8_WEIGHTS
    table = isa if isa is not None else os.environ.get("VIVACE_ISA", "")
    return "bf16" if is_fast and has_pairs(table) else DEFAULT_KV_FORMAT


def available_isas() -> list[str]:
    """Kernel tables this machine can run, best first."""
    return _native.available_isas()


def measure_read_bandwidth(num_bytes: int, num_threads: int, repeats: int = 5) -> float:
    """Bytes a second that threads read together out of a buffer of `num_bytes`, again and again; the best try."""
    return _native.measure_read_bandwidth(num_bytes, num_threads, repeats)


def measure_peak(isa: str, kind: str, num_threads: int, repeats: int = 5) -> float:
    """Operations a second of the instruction a kernel table uses; a multiply and an add are two operations.

    Args:
        isa: name of a kernel table.
        kind: "int8" (dot products), "bf16" (dot products) or "f32" (multiply-adds).
        num_threads: threads that compute at the same time.
        repeats: tries, of which the best counts.

    Returns:
        0.0 where the table has no such instruction or the machine cannot run it.
    """
    return _native.measure_peak(isa, kind, num_threads, repeats)


def _pack_matrices(
    graph: Graph, weights: WeightSource, threads: int, is_turned: Callable[[str], bool]
) -> dict[str, list[_native.PackedMatrix]]:
    """The bands of rows of every matrix of the graph, packed once however many ops read it."""
    packed: dict[str, list[_native.PackedMatrix]] = {}
    memory = _native.ChunkedMemory()
    for op in graph.ops:
        match op:
            case Embed() | Linear():
                names: tuple[str, ...] = (op.weight,)
            case FusedLinear():
                names = op.weights
            case _:
                continue
        for name in names:
            if name not in packed:
                info = weights.info(name)
                pieces = split_bands(info.row_bands, weights.raw(name), info.shape[1])
                packed[name] = [
                    _native.PackedMatrix(
                        str(band.format), raw, band.num_rows, info.shape[1], threads, memory, is_turned(name)
                    )
                    for band, raw in zip(info.row_bands, pieces, strict=True)
                ]
                for piece in packed[name]:
                    piece.full_level = full_level(name, graph.spec.num_layers)
                weights.release(name)
    return packed
