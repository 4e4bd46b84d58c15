"""Embedding and head: some rows at a time, the head for what it reads; one matrix may be both.

A walk comes to the head last and then knows its inputs. Errors are weighed by E[x^2] of them, and codes of fewer bits
than 8 are chosen by GPTQ where the recipe's rounding looks at second moments. A head that is the embedding too is also
read a row at a time, where every channel counts alike: a share of the mean of all channels is added to each. Rows are
worked on some thousands at a time, so that a vocabulary does not set the memory of a run.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vivace.compress.arrays import Array, eye_like, namespace
from vivace.compress.layout import Layout
from vivace.compress.methods import ROUNDINGS, RoundingTask, round_matrix
from vivace.compress.recipe import Recipe
from vivace.compress.schemes import Affine, QuantizedMatrix, QuantScheme
from vivace.compress.statistics import InputStatistics
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear

EMBEDDING = "embed.weight"
RIDGE = 0.1  # of the mean, see docs/compression.md for others
_ROWS = 8192  # at a time, where second moments are looked at or the arithmetic runs elsewhere
_CACHED_WEIGHTS = 1 << 17  # else: what stays in a core's cache while scales are looked for
_EXACT_BITS = 8  # from so many on, weighing is enough


def known_head(graph: Graph, recipe: Recipe, layout: Layout) -> Linear | None:
    """The linear that makes logits, if the recipe looks at inputs and the layout rounds it to codes."""
    last = next(op for op in reversed(graph.ops) if isinstance(op, Linear))
    outside = not last.weight.startswith("layers.")
    return last if outside and recipe.importance and layout[last.weight].scheme is not None else None


def head_rounding(rounding: str, scheme: QuantScheme) -> str:
    """The row of ROUNDINGS that a recipe's rounding means for the head."""
    return "gptq" if ROUNDINGS[rounding].needs_gram and scheme.bits < _EXACT_BITS else "nearest"


def with_ridge(inputs: InputStatistics, weight: str) -> InputStatistics:
    """What a head's errors are weighed by: its inputs, and of an embedding every channel a little."""
    if weight != EMBEDDING:
        return inputs
    mixed = InputStatistics(inputs.width, inputs.wants_gram, inputs.num_tokens)
    mixed.sums, mixed.largest = inputs.sums, inputs.largest
    mixed.squares = inputs.squares + np.float32(RIDGE) * inputs.squares.mean()
    if inputs.gram is not None:
        diagonal = namespace(inputs.gram).diagonal(inputs.gram)
        mixed.gram = inputs.gram + eye_like(inputs.gram) * (RIDGE * float(diagonal.mean()))
    return mixed


def _rows_at_once(rounding: str, task: RoundingTask, place: Callable[[Array], Array]) -> int:
    """No rows are cut apart that share a scale."""
    rows, width = map(int, task.values.shape)
    if task.scheme.group_rows != 1 or task.scheme.granularity == "tensor":
        return rows
    is_here = namespace(place(task.values[:1])) is np
    return max(1, _CACHED_WEIGHTS // width) if is_here and not ROUNDINGS[rounding].needs_gram else _ROWS


def round_in_pieces(rounding: str, task: RoundingTask, place: Callable[[Array], Array]) -> QuantizedMatrix:
    """Round a matrix by a row of ROUNDINGS, some rows at a time.

    Args:
        rounding: the row, as `head_rounding` has it.
        task: with the whole matrix as numpy has it.
        place: puts rows where the arithmetic runs.
    """
    codes, scales, offsets = [], [], []
    at_once = _rows_at_once(rounding, task, place)
    for start in range(0, len(task.values), at_once):
        piece = replace(task, values=place(task.values[start : start + at_once]))
        found = round_matrix(rounding, piece).on_host()
        codes.append(found.codes)
        scales.append(found.affine.scales)
        offsets.append(found.affine.offsets)
    return QuantizedMatrix(task.scheme, np.concatenate(codes), Affine(np.concatenate(scales), np.concatenate(offsets)))
