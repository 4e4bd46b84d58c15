"""Quantised activations, simulated: what the inputs of linears become in codes of few bits, static or dynamic.

Runs every scheme of `activation_schemes.py` on the reference executor, those that no kernel runs as well, to say what
they would cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vivace.compress.activation_schemes import GROUP, ActivationScheme
from vivace.compress.observers import Observation, find_range
from vivace.compress.schemes import Floats
from vivace.execute.reference import ReferenceExecutor, Step, run_ops
from vivace.execute.score import Tokens
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear, Op
from vivace.types.errors import ConfigError
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
    if scheme.mode == "static":
        assert span is not None
        low, high = (np.full((1, 1), value, np.float32) for value in span)
        return _rounded(rows, low, high, scheme)
    shapes = {"tensor": (1, -1), "token": (len(rows), -1), "group": (-1, GROUP)}
    pieces = rows.reshape(shapes[scheme.granularity])
    low, high = (edge(axis=1, keepdims=True) * np.float32(scheme.clip) for edge in (pieces.min, pieces.max))
    rounded: Floats = _rounded(pieces, low, high, scheme).reshape(rows.shape)
    return rounded


def _rounded(values: Floats, low: Floats, high: Floats, scheme: ActivationScheme) -> Floats:
    if scheme.symmetric:
        top = np.float32((1 << (scheme.bits - 1)) - 1)
        largest = np.maximum(np.abs(low), np.abs(high))
        inverse = np.divide(top, largest, out=np.zeros_like(largest), where=largest > 0)
        codes = np.clip(np.rint(values * inverse), -top, top)
        return (codes * (largest / top)).astype(np.float32)
    top = np.float32((1 << scheme.bits) - 1)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = np.where(high > low, (high - low) / top, np.float32(1)).astype(np.float32)
    zero = np.rint(-low / scale)
    shifted = np.clip(np.rint(values / scale) + zero, 0, top) - zero
    rounded: Floats = (shifted * scale).astype(np.float32)
    return rounded


def observe_inputs(graph: Graph, weights: WeightSource, windows: Sequence[Tokens]) -> dict[str, Observation]:
    """What the inputs of linears are on calibration windows, by the name of the buffer that is read.

    Args:
        graph: an op list without fused ops.
        weights: the model's.
        windows: token windows.
    """
    found: dict[str, Observation] = {}

    def observe(name: str, rows: Floats) -> Floats:
        found.setdefault(name, Observation()).add(rows)
        return rows

    executor = InterceptedExecutor(graph, weights, max(map(len, windows)), observe)
    for window in windows:
        executor.forward(whole_batch(window))
    return found


def simulate(
    graph: Graph,
    weights: WeightSource,
    scheme: ActivationScheme,
    tokens: int,
    observed: Mapping[str, Observation] | None = None,
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
        observed: needed for static scales.
        kv_format: what keys and values are rounded to; None: they stay float32.
        clips: by buffer, what share of its dynamic ranges is kept (`clipping.py`); all of those that are not named.

    Raises:
        ConfigError: static scales without an observation.
    """
    if scheme.mode == "static" and not observed:
        raise ConfigError("Static activation scales need calibration.", "Give calibration text, or use mode: dynamic.")
    spans = {
        name: find_range(seen, scheme.observer, scheme.bits)
        for name, seen in (observed or {}).items()
        if scheme.mode == "static"
    }
    schemes = {name: replace(scheme, clip=scheme.clip * ratio) for name, ratio in (clips or {}).items()}

    def change(name: str, rows: Floats) -> Floats:
        return quantize_activations(rows, schemes.get(name, scheme), spans.get(name))

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
