"""Which layouts of a model fit a memory and keep a quality: bytes of every component, and what quality to expect.

Chapter exercise 5 (70 billion parameters in 16 GB at 95 %). Knows shapes and curves, opens no model. Quality comes from
`quality_curves.py` and is no more than what similar models kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from vivace.plan.kv import plan_kv
from vivace.plan.model_shapes import ModelShape
from vivace.plan.quality_curves import METHODS, Prediction, bits_needed, predict_quality
from vivace.types.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """A way to store weights: `runs_here` when vivace has a kernel for it."""

    name: str
    bits: float
    method: str
    runs_here: bool


FORMATS = (
    StoredFormat("F16", 16, "rounding", True),
    StoredFormat("Q8_0", 8.5, "rounding", True),
    StoredFormat("Q8_64", 8.25, "rounding", True),
    StoredFormat("Q6_K", 6.5625, "rounding", True),
    StoredFormat("Q6_0", 6.5, "rounding", True),
    StoredFormat("Q5_0", 5.5, "calibrated", True),
    StoredFormat("Q4_0", 4.5, "calibrated", True),
    StoredFormat("Q3_K", 3.4375, "calibrated", False),
    StoredFormat("IQ3_XXS", 3.0625, "calibrated", False),
    StoredFormat("Q2_K", 2.625, "calibrated", False),
    StoredFormat("IQ2_XXS", 2.0625, "calibrated", False),
    StoredFormat("AQLM 2-bit", 2.0, "tuned", False),
    StoredFormat("AQLM 1-bit", 1.0, "tuned", False),
)
"""For the blocks, from the nearest; bits of one weight with its scales (codebooks left out)."""
END_FORMATS = tuple(row for row in FORMATS if row.bits >= 4.5)
"""For embedding and head: fewer bits than four are not published for them."""
_WHOLE = 8.5  # bits from which on an end loses next to nothing
KV_FORMATS = ("f16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs: `sequences` of `context` tokens, steps of `step_rows` rows; and what a process takes bare."""

    context: int = 2048
    sequences: int = 1
    step_rows: int = 256
    runtime_bytes: int = 96 << 20


@dataclass(frozen=True, slots=True)
class FitPlan:
    """One layout: formats, bytes of each component, and the quality to expect."""

    blocks: StoredFormat
    embedding: str
    head: str
    kv_format: str
    num_bytes: dict[str, int]
    bits_per_weight: float
    quality: Prediction

    @property
    def total_bytes(self) -> int:
        """Bytes of all components."""
        return sum(self.num_bytes.values())


@dataclass(frozen=True, slots=True)
class FitAnswer:
    """What was found.

    Attributes:
        plans: those that fit and are expected to keep the quality; what runs here first, then the best.
        largest_quality: the best layout that fits the memory, if any does: the nearest when `plans` is empty.
        smallest_memory: the smallest layout that is expected to keep the quality.
        bits_left: bits a weight that the memory leaves, once KV in the smallest format and the rest are taken.
        bits_needed: for each method, the bits a weight at which the quality is expected.
    """

    shape: ModelShape
    memory_bytes: int
    quality: float
    plans: tuple[FitPlan, ...]
    largest_quality: FitPlan | None
    smallest_memory: FitPlan
    bits_left: float
    bits_needed: dict[str, float]


def plan_fit(shape: ModelShape, memory_bytes: int, quality: float, workload: Workload | None = None) -> FitAnswer:
    """Rank the layouts of a model.

    Args:
        shape: of the model; `shape_for` makes one from a number of parameters.
        memory_bytes: what weights, KV cache, activations and the process may take together.
        quality: recovery asked for: perplexity before over perplexity after, between 0 and 1.
        workload: what runs.

    Raises:
        ConfigError: a number is out of range.
    """
    workload = workload or Workload()
    if not 0 < quality < 1:
        raise ConfigError(f"A quality of {quality:g} was asked for.", "Give a share between 0 and 1, such as 0.95.")
    if memory_bytes <= 0:
        raise ConfigError("No memory is given.", "Give a size such as 16GiB.")
    everything = list(_layouts(shape, workload))
    fitting = [plan for plan in everything if plan.total_bytes <= memory_bytes]
    good = [plan for plan in everything if plan.quality.recovery >= quality]
    plans = sorted((plan for plan in fitting if plan.quality.recovery >= quality), key=_rank)
    fixed = min(sum(plan.num_bytes[name] for name in ("KV cache", "activations", "runtime")) for plan in everything)
    billions = shape.num_params / 1e9
    return FitAnswer(
        shape=shape,
        memory_bytes=memory_bytes,
        quality=quality,
        plans=tuple(_best_of_each(plans)),
        largest_quality=max(fitting, key=lambda plan: plan.quality.recovery, default=None),
        smallest_memory=min(good, key=lambda plan: plan.total_bytes),
        bits_left=8 * (memory_bytes - fixed) / shape.num_params,
        bits_needed={method: bits_needed(billions, quality, method) for method in METHODS},
    )


def _layouts(shape: ModelShape, workload: Workload) -> Iterator[FitPlan]:
    heads = END_FORMATS if shape.head_params else END_FORMATS[:1]
    for blocks, embedding, head, kv_format in product(FORMATS, END_FORMATS, heads, KV_FORMATS):
        if min(embedding.bits, head.bits) < min(blocks.bits, 4.5):
            continue  # ends are not stored in fewer bits than the blocks
        weights = {
            "embedding": round(shape.embedding_params * embedding.bits / 8),
            "blocks": round(shape.block_params * blocks.bits / 8),
            "head": round(shape.head_params * head.bits / 8),
        }
        bits = 8 * sum(weights.values()) / shape.num_params
        kv = plan_kv(shape.attention, workload.context, workload.sequences, kv_format)
        rest = {
            "KV cache": kv.total_bytes,
            "activations": _activation_bytes(shape, workload),
            "runtime": workload.runtime_bytes,
        }
        quality = predict_quality(shape.num_params / 1e9, _counted_bits(shape, blocks, embedding, head), blocks.method)
        name = head.name if shape.head_params else "tied"
        yield FitPlan(blocks, embedding.name, name, kv_format, weights | rest, bits, quality)


def _counted_bits(shape: ModelShape, blocks: StoredFormat, embedding: StoredFormat, head: StoredFormat) -> float:
    """Bits a weight as the curves count them: the blocks decide.

    Bits spent on the ends do not make up for those that blocks lack: no more is counted than for blocks of this format
    with ends as published files have them, and no more than eight bits of an end, which lose next to nothing.
    """
    if blocks.bits >= 16:
        return min(16.0, embedding.bits, head.bits)
    ends = shape.embedding_params * min(embedding.bits, _WHOLE) + shape.head_params * min(head.bits, _WHOLE)
    return min((shape.block_params * blocks.bits + ends) / shape.num_params, blocks.bits + 0.35)


def _activation_bytes(shape: ModelShape, workload: Workload) -> int:
    """Float32 rows of a step: four buffers of the hidden size, two of the feed-forward, and a row of logits each."""
    logits = workload.sequences * shape.vocab_size
    return 4 * (workload.step_rows * (4 * shape.hidden_size + 2 * shape.ffn_size) + logits)


def _rank(plan: FitPlan) -> tuple[bool, float, int, int]:
    recovery = round(plan.quality.recovery, 4)
    return (not plan.blocks.runs_here, -recovery, KV_FORMATS.index(plan.kv_format), plan.total_bytes)


def _best_of_each(plans: list[FitPlan]) -> Iterator[FitPlan]:
    """The first plan of each format of the blocks: the others differ in ends and KV alone."""
    seen: set[str] = set()
    for plan in plans:
        if plan.blocks.name not in seen:
            seen.add(plan.blocks.name)
            yield plan
