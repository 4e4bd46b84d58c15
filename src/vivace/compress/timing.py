"""What formats cost in time: one token's step of a model with its layers, or its head, in each format.

Only differences are told apart: what a step takes with everything in its quickest format, and what a weight takes more
in another. Times do not hang on values, so matrices of zeros are run.
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vivace.compress.containers import KERNELS
from vivace.compress.sensitivity import PartSensitivity
from vivace.compress.stored import StoredTensor, StoredWeights
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.graph.weights import weight_shapes
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.step import ForwardBatch
from vivace.types.weights import TensorFormat, WeightSource

_ROUNDS, _STEPS = 5, 8
TIMED_STEPS = _ROUNDS * (_STEPS + 1)  # of each executor
_HEAD = "head"
_LAYERS = "layers"


@dataclass(frozen=True, slots=True)
class FormatTimes:
    """Milliseconds of a step alone.

    Attributes:
        quickest_ms: a step with layers and head in their quickest formats.
        extra_ms: by ("layers" or "head", format): what a step takes more with all of them in that format.
        num_weights: by "layers" and "head".
    """

    quickest_ms: float
    extra_ms: Mapping[tuple[str, TensorFormat], float]
    num_weights: Mapping[str, int]

    def of_part(self, where: str, format: TensorFormat, num_weights: int) -> float:
        """What some weights in a format add to the quickest step: as another of its kernel that was timed."""
        timed = next(known for part, known in self.extra_ms if part == where and KERNELS[known] == KERNELS[format])
        return self.extra_ms[where, timed] * num_weights / max(self.num_weights[where], 1)


def time_formats(
    spec: ModelSpec, weights: WeightSource, formats: Sequence[TensorFormat], num_threads: int | None = None
) -> FormatTimes:
    """Time steps of one token, formats in turns, so that a machine that changes its speed treats them alike.

    Args:
        spec: what the model is.
        weights: its tensors; those that are no matrices are used.
        formats: that layers and head are tried in; the first of those of one kernel, which read the same bytes.
        num_threads: that compute; None is the machine's cores.
    """
    shapes = {name: shape for name, shape in weight_shapes(spec).items() if len(shape) > 1}
    head = "lm_head.weight" if "lm_head.weight" in shapes else "embed.weight"
    formats = list({KERNELS[format]: format for format in reversed(formats)}.values())[::-1]
    layouts = {(_LAYERS, format): (format, formats[0]) for format in formats}
    layouts |= {(_HEAD, format): (formats[0], format) for format in formats[1:]}
    graph = build_graph(spec)
    executors = {
        key: NativeExecutor(
            graph,
            _zeros(shapes, head, of_layers, of_head, weights),
            num_blocks=1,
            max_rows=1,
            num_threads=num_threads,
        )
        for key, (of_layers, of_head) in layouts.items()
    }
    taken: dict[tuple[str, TensorFormat], list[float]] = {key: [] for key in executors}
    for _ in range(_ROUNDS):
        for key, executor in executors.items():
            taken[key].append(_step_ms(executor))
    times = {key: min(rounds) for key, rounds in taken.items()}
    times[_HEAD, formats[0]] = times[_LAYERS, formats[0]]
    least = {where: min(ms for (part, _), ms in times.items() if part == where) for where in (_LAYERS, _HEAD)}
    base = times[_LAYERS, formats[0]]
    return FormatTimes(
        quickest_ms=least[_LAYERS] + least[_HEAD] - base,
        extra_ms={key: ms - least[key[0]] for key, ms in times.items()},
        num_weights={
            _LAYERS: sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("layers.")),
            _HEAD: math.prod(shapes[head]),
        },
    )


def with_times(spec: ModelSpec, parts: Sequence[PartSensitivity], times: FormatTimes) -> list[PartSensitivity]:
    """The same parts, with what each option adds to the quickest step; an embedding that is no head adds nothing."""
    shapes = weight_shapes(spec)
    tied = "lm_head.weight" not in shapes
    timed = []
    for part in parts:
        if not part.matrices:  # what keys and values take hangs on the context, not on a step alone
            timed.append(part)
            continue
        where = _LAYERS if part.name.startswith("layers.") else _HEAD
        counts = where == _LAYERS or part.name.startswith("lm_head") or tied
        num_weights = part.part.num_weights(shapes)
        options = tuple(
            replace(
                option, milliseconds=times.of_part(where, TensorFormat(option.label), num_weights) if counts else 0.0
            )
            for option in part.options
        )
        timed.append(replace(part, options=options))
    return timed


def left_for_formats(times: FormatTimes, parts: Sequence[PartSensitivity], most_ms: float) -> float:
    """What of a limit for a token the choice of formats may use, beyond everything in its quickest format.

    Raises:
        ConfigError: the quickest formats that the parts bear take longer.
    """
    needed = sum(min(option.milliseconds for option in part.bearable) for part in parts)
    if most_ms < times.quickest_ms + needed:
        raise ConfigError(
            f"{most_ms:g} ms a token is too little.",
            f"The quickest layout takes {times.quickest_ms + needed:.3g} ms here.",
        )
    return most_ms - times.quickest_ms


def _zeros(
    shapes: Mapping[str, tuple[int, ...]],
    head: str,
    of_layers: TensorFormat,
    of_head: TensorFormat,
    weights: WeightSource,
) -> StoredWeights:
    stored = {}
    for name, shape in shapes.items():
        format = of_head if name in (head, "embed.weight") else of_layers
        format = format if shape[1] % 32 == 0 else TensorFormat.F16  # as `layout.py` keeps such rows
        stored[name] = StoredTensor(shape, format, np.zeros(num_bytes(format, shape), np.uint8))
    return StoredWeights(stored, weights)


def _step_ms(executor: NativeExecutor) -> float:
    """Median of some steps of one token, after one that brings the weights in."""
    batch = ForwardBatch(
        token_ids=np.zeros(1, np.int32),
        positions=np.zeros(1, np.int32),
        sequence_starts=np.array([0, 1], np.int32),
        block_tables=np.zeros((1, 1), np.int32),
        logit_rows=np.zeros(1, np.int32),
    )
    executor.forward(batch)
    taken = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        executor.forward(batch)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)
