"""One engine step as data: what the scheduler decided, what the executor reads, what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import EngineError, RequestError
from vivace.types.events import TokenLogprob

BlockContent = NDArray[np.uint8]
"""One KV block over all layers as bytes, (bytes_per_block,)."""
BLOCK_SIZE = 16  # positions per KV block: one 512-bit vector of float32 lanes, see native/attention


class SequenceShare(NamedTuple):  # one a stream and step: a tuple takes a third of the time of a frozen dataclass
    """Sequence `sequence_id` computes its known tokens [start, start + count) in this step.

    `wants_logits`: the share ends at the last known token, so the next one is to be sampled. `drafts` are guesses that
    follow the last known token; `count` includes them, their rows give logits too, and no sequence knows them yet.
    """

    sequence_id: int
    start: int
    count: int  # type: ignore[assignment]  # nobody asks a share for tuple.count
    wants_logits: bool
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The shares of one step, in batch order.

    Before they run, the KV blocks (source, target) of `block_copies` are copied, `local_copies` among the blocks of
    local layers, and after that the blocks of `block_writes` and `local_writes` are filled with what they held once
    (see BlockMemory).
    """

    shares: tuple[SequenceShare, ...]
    block_copies: tuple[tuple[int, int], ...] = ()
    local_copies: tuple[tuple[int, int], ...] = ()
    block_writes: tuple[tuple[int, BlockContent], ...] = ()
    local_writes: tuple[tuple[int, BlockContent], ...] = ()

    @property
    def moves_blocks(self) -> bool:
        """Whether blocks are copied or filled before the rows run."""
        return bool(self.block_copies or self.local_copies or self.block_writes or self.local_writes)

    @property
    def num_tokens(self) -> int:
        """Rows of the forward pass."""
        return sum(share.count for share in self.shares)


@dataclass(frozen=True, slots=True)
class Draw:
    """The token drawn from one row of logits, or why none could be drawn (`token_id` is then -1)."""

    token_id: int
    logprob: TokenLogprob | None = None
    error: EngineError | RequestError | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step brought: one draw for each share that wanted logits, in batch order.

    A share with drafts has a draw more for each draft that equals the draw before it, up to the first that does not.
    `observed` are the attention masses of observed rows (`Executor.observed`), by sequence.
    """

    draws: tuple[Draw, ...]
    observed: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """The arrays an executor reads. R rows (tokens), S sequences, L rows whose logits are wanted.

    token_ids int32 (R,); positions int32 (R,), consecutive within a sequence; sequence_starts int32 (S + 1,): rows
    [starts[s], starts[s+1]) belong to sequence s; block_tables int32 (S, max_blocks), entry b holds the KV block of
    positions [16 b, 16 b + 16), padded with 0; logit_rows int32 (L,), ascending.

    slots int32 (R,): where a row's key and value go in its table: its position, less 16 for each block that was taken
    out of the table. None: nothing was taken out. Tables, windows and sinks count in slots.

    window_starts and sink_ends, both or neither, int32 (R,): a row at slot p sees the slots [0, sink_ends) and
    [window_starts, p], its own always. None: it sees [0, p]. Blocks that lie wholly between the two for every row of a
    sequence are not read; their table entries may be -1.

    local_tables int32 (S, max_blocks): blocks of layers with a window of their own (local layers), numbered apart, by
    position; entries before a row's window may be -1. Such layers see their window whatever else the batch says. None:
    the block tables.

    observe_rows int32 (O,): rows whose attention `Executor.observed` tells.

    row_levels int8 (R,) or None: how much of nested weights each row reads, see `types.precision`; None: all of it.
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequence_starts: NDArray[np.int32]
    block_tables: NDArray[np.int32]
    logit_rows: NDArray[np.int32]
    window_starts: NDArray[np.int32] | None = None
    sink_ends: NDArray[np.int32] | None = None
    slots: NDArray[np.int32] | None = None
    local_tables: NDArray[np.int32] | None = None
    observe_rows: NDArray[np.int32] | None = None
    row_levels: NDArray[np.int8] | None = None


@dataclass(frozen=True, slots=True)
class LocalLayers:
    """What has `num_blocks` blocks of its own: layers that see `window` positions, float16 copies of mixed KV formats.

    The blocks of the `first` positions of a sequence stay beside those of its window.
    """

    num_blocks: int
    window: int
    first: int = 0


class BlockMemory(Protocol):
    """The memory of KV blocks, for those who carry blocks elsewhere and back."""

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one KV block over all layers."""
        ...

    def read_block(self, block: int) -> BlockContent:
        """A copy of one KV block of every layer, uint8 (bytes_per_block,)."""
        ...

    def write_block(self, block: int, content: BlockContent) -> None:
        """Fill one KV block of every layer with what `read_block` returned, here or in another process."""
        ...


class ForwardPass(Protocol):
    """What reading a text asks of an executor, or of what stands before one."""

    @property
    def num_blocks(self) -> int:
        """KV blocks in the pool, numbered from 0."""
        ...

    @property
    def max_rows(self) -> int:
        """Most rows one `forward` takes."""
        ...

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """Compute the batch, write its keys and values, and return logits, float32 (L, vocab_size).

        The array may be a buffer that the next call overwrites.
        """
        ...


class Executor(ForwardPass, BlockMemory, Protocol):
    """Runs the op list of one model over a KV pool it owns."""

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        ...

    def observed(self) -> NDArray[np.float32]:
        """Attention that the observed rows of the last `forward` paid to the blocks of their tables.

        Returns:
            float32 (O, max_blocks): softmax mass, summed over heads and over the layers that are not local.
        """
        ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy KV blocks (source, target) in every layer that is not local, before the next `forward`."""
        ...

    def copy_local_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (source, target) of the local layers, before the next `forward`."""
        ...

    @property
    def bytes_per_local_block(self) -> int:
        """As `bytes_per_block`, of the local layers; 0 when a block holds all layers."""
        ...

    def read_local_block(self, block: int) -> BlockContent:
        """As `read_block`, of the local layers."""
        ...

    def write_local_block(self, block: int, content: BlockContent) -> None:
        """As `write_block`, of the local layers."""
        ...

    def close(self) -> None:
        """Free the pool and the weights."""
        ...


@runtime_checkable
class PatientExecutor(Protocol):
    """An executor that computes a batch while its caller does something else."""

    def start(self, batch: ForwardBatch) -> None:
        """Begin with a batch and return at once. Until `finish`, nothing else is asked of the executor.

        Args:
            batch: as for `forward`; nobody changes its arrays before `finish`.
        """
        ...

    def finish(self) -> NDArray[np.float32]:
        """Take part in what was started; returns what `forward` would."""
        ...
