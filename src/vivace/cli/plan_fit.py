"""`vivace plan fit`: which layouts of a model fit a memory, and what quality is to be expected of them."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from vivace.cli.quantities import read_bytes, read_count
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.plan.fit import FitAnswer, FitPlan
    from vivace.plan.model_shapes import ModelShape

HELP = "which layouts of a model fit a memory, at what quality"
DESCRIPTION = (
    "Bytes of every component, and the quality that similar models kept. Quality is recovery: the perplexity before "
    "over the perplexity after. Embedding and head follow the nearest published shape unless --model names a file."
)
_NOT_REACHABLE_STATUS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--params", metavar="P", help="parameters of the model, such as 70B")
    parser.add_argument("--model", metavar="M", help="instead: a catalogue name, a .gguf file or a folder")
    parser.add_argument("--memory", required=True, metavar="SIZE", help="memory for everything, such as 16GiB")
    parser.add_argument("--quality", type=float, default=0.95, metavar="Q", help="recovery asked for (default: 0.95)")
    parser.add_argument("--context", type=int, default=2048, metavar="N", help="tokens of a sequence (default: 2048)")
    parser.add_argument("--sequences", type=int, default=1, metavar="S", help="sequences at the same time (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Work it out and print it; status 3 when the quality cannot be reached.

    Raises:
        VivaceError: a number is out of range, or there is no such model.
    """
    from vivace.plan.fit import Workload, plan_fit

    if (arguments.params is None) == (arguments.model is None):
        raise ConfigError("Give --params or --model, one of the two.", "Such as --params 70B.")
    workload = Workload(context=arguments.context, sequences=arguments.sequences)
    memory = read_bytes(arguments.memory, "--memory")
    answer = plan_fit(_shape(arguments), memory, arguments.quality, workload)
    print(json.dumps(_fields(answer)) if arguments.json else _text(answer))
    return 0 if answer.plans else _NOT_REACHABLE_STATUS


def _shape(arguments: argparse.Namespace) -> "ModelShape":
    from vivace.plan.model_shapes import ModelShape, shape_for

    if arguments.params is not None:
        return shape_for(read_count(arguments.params, "--params"))
    from math import prod

    from vivace.files.catalogue import resolve
    from vivace.files.open import open_model
    from vivace.plan.kv import shape_of

    model = open_model(resolve(arguments.model))
    try:
        spec = model.spec
        params = sum(prod(model.weights.info(name).shape) for name in model.weights.names())
        tied = "lm_head.weight" not in model.weights.names()
        sizes = (spec.hidden_size, spec.ffn_size, spec.vocab_size)
        return ModelShape(arguments.model, params, *sizes, shape_of(spec), tied)
    finally:
        model.close()


def _fields(answer: "FitAnswer") -> dict[str, object]:
    def plan(row: "FitPlan | None") -> dict[str, object] | None:
        return None if row is None else asdict(row) | {"total_bytes": row.total_bytes}

    return {
        "reachable": bool(answer.plans),
        "memory_bytes": answer.memory_bytes,
        "quality": answer.quality,
        "params": answer.shape.num_params,
        "like": answer.shape.name,
        "bits_left": answer.bits_left,
        "bits_needed": answer.bits_needed,
        "plans": [plan(row) for row in answer.plans],
        "nearest_in_memory": plan(answer.largest_quality),
        "nearest_in_quality": plan(answer.smallest_memory),
    }


def _text(answer: "FitAnswer") -> str:
    shape = answer.shape
    memory = answer.memory_bytes / 2**30
    size = f"{shape.num_params / 1e9:.3g}B parameters (shaped like {shape.name})"
    lines = [
        f"{size} in {memory:.4g} GiB at {answer.quality:.0%}",
        f"bits a weight left: {answer.bits_left:.2f}; needed for {answer.quality:.0%}: "
        + ", ".join(f"{bits:.2f} {method}" for method, bits in answer.bits_needed.items()),
    ]
    if answer.plans:
        lines.append(f"{len(answer.plans)} kinds of layout fit; the first is ours to recommend:")
        return "\n".join([*lines, *(line for plan in answer.plans[:5] for line in _plan_lines(plan))])
    if answer.largest_quality is None:
        lines.append("Not reachable: no layout fits the memory at all. The smallest that keeps the quality:")
    else:
        lines += ["Not reachable; nearest in this memory is", *_plan_lines(answer.largest_quality)]
        lines += ["and nearest at this quality"]
    return "\n".join([*lines, *_plan_lines(answer.smallest_memory)])


def _plan_lines(plan: "FitPlan") -> list[str]:
    quality, runs = plan.quality, "runs here" if plan.blocks.runs_here else "no kernel here"
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in plan.num_bytes.items())
    return [
        f"  {plan.blocks.name} blocks, {plan.embedding} embedding, {plan.head} head, {plan.kv_format} KV: "
        f"{plan.total_bytes / 2**30:.2f} GiB, {plan.bits_per_weight:.2f} bits a weight, {runs}",
        f"    recovery {quality.recovery:.1%} ({quality.low:.1%} to {quality.high:.1%}); GiB: {parts}",
    ]
