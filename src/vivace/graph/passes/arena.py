"""Plan where buffers live in an executor's arena: a step then allocates nothing, and memory of dead buffers is reused.

Two buffers share memory only if one's last reader comes strictly before the other's writer: an op never finds its
output on top of its input, so kernels may assume that they do not alias.
"""

from dataclasses import dataclass

from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.graph import Graph
from vivace.graph.ops import SelectRows

ALIGNMENT = 16  # float32 elements: one cache line of 64 bytes


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Offsets of buffers in float32 elements a row, multiples of 16.

    `offsets` are of buffers with a row for every token (R rows) and fit into `floats_per_row`; `selected_offsets` are
    of SelectRows' output and all after it (L rows), in an arena of their own of `selected_floats_per_row`.
    With n rows in the arena a buffer may be laid out contiguously at n * offset, or with rows `floats_per_row` apart.
    """

    offsets: dict[str, int]
    floats_per_row: int
    selected_offsets: dict[str, int]
    selected_floats_per_row: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A buffer is needed from op number `first` (its writer) to op number `last` (its last reader), both included."""

    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether some op needs both buffers."""
        return self.first <= other.last and other.first <= self.last


def buffer_lifetimes(graph: Graph) -> dict[str, Lifetime]:
    """Lifetimes of all buffers; the output lives to the end of the list."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, op in enumerate(graph.ops):
        for name in buffers_written(op):
            first[name] = last[name] = number
        for name in buffers_read(op):
            last[name] = number
    last[graph.output] = len(graph.ops) - 1
    return {name: Lifetime(first[name], last[name]) for name in first}


def plan_arena(graph: Graph) -> ArenaPlan:
    """Place every buffer of the graph; buffers that are alive together never overlap."""
    lifetimes = buffer_lifetimes(graph)
    selected = selected_buffers(graph)
    offsets, size = place_buffers(
        {name: life for name, life in lifetimes.items() if name not in selected}, graph.widths
    )
    selected_offsets, selected_size = place_buffers({name: lifetimes[name] for name in selected}, graph.widths)
    return ArenaPlan(offsets, size, selected_offsets, selected_size)


def selected_buffers(graph: Graph) -> set[str]:
    """Buffers that have a row for each wanted row only: SelectRows' output and whatever is computed from it."""
    selected: set[str] = set()
    for op in graph.ops:
        if isinstance(op, SelectRows) or not selected.isdisjoint(buffers_read(op)):
            selected.update(buffers_written(op))
    return selected


def place_buffers(lifetimes: dict[str, Lifetime], widths: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets for buffers of the given sizes, and the size of the whole; sizes and offsets are multiples of 16.

    Greedy by size (Pisarchyk and Lee, 2020): the widest first, each at the lowest offset free for its life.
    """
    offsets: dict[str, int] = {}
    for name in sorted(lifetimes, key=lambda name: (-widths[name], lifetimes[name].first, name)):
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(widths[other]))
            for other in offsets
            if lifetimes[other].overlaps(lifetimes[name])
        )
        offsets[name] = _lowest_gap(taken, _aligned(widths[name]))
    size = max((offset + _aligned(widths[name]) for name, offset in offsets.items()), default=0)
    return offsets, size


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    start = 0
    for begin, end in taken:
        if start + size <= begin:
            break
        start = max(start, end)
    return start


def _aligned(width: int) -> int:
    return -(-width // ALIGNMENT) * ALIGNMENT
