"""Quantised activations, simulated: what the inputs of linears become in codes of few bits, static or dynamic.

Runs every scheme of `activation_schemes.py` on the reference executor, those that no kernel runs as well, to say what
they would cost. What a kernel does run becomes the very same numbers here (`numerics/input_grids.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from vivace.compress.activation_schemes import GROUP, ActivationScheme
from vivace.compress.schemes import Floats
from vivace.execute.reference import ReferenceExecutor, Step, run_ops
from vivace.execute.score import Tokens
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear, Op
from vivace.numerics.input_grids import on_grid
from vivace.types.errors import ConfigError
from vivace.types.input_scheme import FINE_BITS, InputGrid
from vivace.types.step import BLOCK_SIZE, ForwardBatch
from vivace.types.weights import WeightSource


def quantize_activations(rows: Floats, scheme: ActivationScheme, span: tuple[float, float] | None = None) -> Floats:
    """Rows as they are after quantisation and back, float32 of their shape.

    Args:
        rows: float32 (tokens, width); groups need a width that 32 divides.
        scheme: the grid.
        span: (low, high) of static scales.
    """
    if not rows.size:  # a step that wants no logits has no rows for the head
        return rows
    top, fine = float((1 << (min(scheme.bits, 8) - 1)) - 1), scheme.bits == FINE_BITS
    if scheme.mode == "static":
        assert span is not None
        low, high = min(span[0], 0.0), max(span[1], 0.0)
        return on_grid(rows, InputGrid(top, 1.0, True, True, not scheme.symmetric, low, high), fine=fine)
    # To the grid, a tensor is one long row, and a group with a zero point a row of 32 columns.
    by_row = scheme.granularity != "group" or not scheme.symmetric
    shapes = {"tensor": (1, -1), "token": rows.shape, "group": (-1, GROUP) if by_row else rows.shape}
    grid = InputGrid(top, scheme.clip, by_row, is_shifted=not scheme.symmetric)
    return on_grid(rows.reshape(shapes[scheme.granularity]), grid, fine=fine).reshape(rows.shape)


def simulate(
    graph: Graph,
    weights: WeightSource,
    scheme: ActivationScheme,
    tokens: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    *,
    kv_format: str | None = None,
    clips: Mapping[str, float] | None = None,
) -> "InterceptedExecutor":
    """An executor in float32 whose linears read quantised activations.

    Args:
        graph: an op list without fused ops.
        weights: the model's.
        scheme: how activations are quantised.
        tokens: the longest sequence it is to take.
        ranges: by buffer, those of static scales (`input_ranges.py`).
        kv_format: what keys and values are rounded to; None: they stay float32.
        clips: by buffer, what share of its dynamic ranges is kept (`clipping.py`); the scheme's of those not named.

    Raises:
        ConfigError: static scales without ranges.
    """
    if scheme.mode == "static" and not ranges:
        raise ConfigError("Static activation scales need calibration.", "Give calibration text, or use mode: dynamic.")
    schemes = {name: replace(scheme, clip=clip) for name, clip in (clips or {}).items()}

    def change(name: str, rows: Floats) -> Floats:
        return quantize_activations(rows, schemes.get(name, scheme), (ranges or {}).get(name))

    return InterceptedExecutor(graph, weights, tokens, change, kv_format)


class InterceptedExecutor(ReferenceExecutor):
    """The reference executor with something done to the inputs of linears, for one sequence at a time.

    Args:
        graph: an op list without fused ops.
        weights: float32 copies are made on first use.
        tokens: KV positions it has.
        change: (buffer, rows) -> what linears read in their place.
        kv_format: what keys and values are rounded to, or None.
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightSource,
        tokens: int,
        change: Callable[[str, Floats], Floats],
        kv_format: str | None = None,
    ) -> None:
        blocks = -(-tokens // BLOCK_SIZE)
        super().__init__(graph, weights, num_blocks=blocks, max_rows=max(tokens, 1), kv_format=kv_format)
        self._change = change

    def forward(self, batch: ForwardBatch) -> Floats:
        """Run the op list; logits float32 (L, vocab_size), a fresh array."""
        done: set[str] = set()

        def intercept(op: Op, step: Step) -> None:
            if isinstance(op, Linear) and op.x not in done:
                done.add(op.x)
                step.buffers[op.x] = self._change(op.x, step.buffers[op.x])

        step = Step(batch, self._pages, self.weight)
        run_ops(self._graph.ops, step, intercept)
        return step.buffers[self._graph.output]


def whole_batch(window: Tokens) -> ForwardBatch:
    """A window as one sequence; the logits of its last row alone."""
    return ForwardBatch(
        token_ids=window.astype(np.int32),
        positions=np.arange(len(window), dtype=np.int32),
        sequence_starts=np.array([0, len(window)], np.int32),
        block_tables=np.arange(-(-len(window) // BLOCK_SIZE), dtype=np.int32)[None, :],
        logit_rows=np.array([len(window) - 1], np.int32),
    )
