"""`vivace plan`: what a choice costs, before a model is loaded."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from vivace.cli import plan_fit, plan_rounding, plan_speculate
from vivace.cli.kv_options import KV_FORMAT_HELP, kv_formats
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT

if TYPE_CHECKING:
    from vivace.plan.kv import AttentionShape, KvPlan

NAME = "plan"
HELP = "what a choice costs, before a model is loaded"

SHAPE_OPTIONS = ("layers", "heads", "kv_heads", "head_dim")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the calculators and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    kv = actions.add_parser("kv", help="bytes that keys and values take")
    kv.add_argument("--model", metavar="M", help="a catalogue name, a .gguf file, a folder or a hub id")
    kv.add_argument("--context", type=int, metavar="N", help="tokens of a sequence (default: the model's context)")
    kv.add_argument("--sequences", type=int, default=1, metavar="S", help="sequences at the same time (default: 1)")
    kv.add_argument("--kv-format", type=kv_formats, metavar="F", default=DEFAULT_KV_FORMAT, help=KV_FORMAT_HELP)
    shape = kv.add_argument_group("instead of --model, the shape of one")
    shape.add_argument("--layers", type=int, metavar="N", help="layers")
    shape.add_argument("--heads", type=int, metavar="N", help="query heads")
    shape.add_argument("--kv-heads", type=int, metavar="N", help="KV heads (default: as many as heads)")
    shape.add_argument("--head-dim", type=int, metavar="N", help="lanes of a head")
    kv.add_argument("--json", action="store_true", help="print JSON")
    speculate = actions.add_parser("speculate", help=plan_speculate.HELP, description=plan_speculate.DESCRIPTION)
    plan_speculate.add_arguments(speculate)
    plan_fit.add_arguments(actions.add_parser("fit", help=plan_fit.HELP, description=plan_fit.DESCRIPTION))
    plan_rounding.add_quantize_arguments(actions.add_parser("quantize", help=plan_rounding.QUANTIZE_HELP))
    plan_rounding.add_method_arguments(actions.add_parser("method", help=plan_rounding.METHOD_HELP))


def run(arguments: argparse.Namespace) -> int:
    """Carry the calculator out.

    Raises:
        VivaceError: there is no such model, or a number can never work.
    """
    return _ACTIONS[arguments.action](arguments)


def _kv(arguments: argparse.Namespace) -> int:
    from vivace.plan.kv import plan_kv

    shape, trained = _shape(arguments)
    context = arguments.context or trained
    if context is None:
        raise ConfigError("No context is given.", "Give --context: tokens of one sequence.")
    plan = plan_kv(shape, context, arguments.sequences, arguments.kv_format)
    print(json.dumps(_fields(plan)) if arguments.json else _text(plan))
    return 0


def _shape(arguments: argparse.Namespace) -> tuple["AttentionShape", int | None]:
    """The shape that is asked about, and the context its model was trained for."""
    from vivace.plan.kv import AttentionShape, shape_of

    given = [name for name in SHAPE_OPTIONS if getattr(arguments, name) is not None]
    if arguments.model is None and given:
        if missing := [name for name in ("layers", "heads", "head_dim") if name not in given]:
            raise ConfigError(f"--{missing[0].replace('_', '-')} is missing.", "A shape needs layers, heads, head-dim.")
        kv_heads = arguments.heads if arguments.kv_heads is None else arguments.kv_heads
        return AttentionShape(arguments.layers, arguments.heads, kv_heads, arguments.head_dim), None
    if given:
        raise ConfigError("--model and a shape are given.", "Give one of the two.")
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL
    from vivace.files.open import open_model

    model = open_model(resolve(arguments.model or DEFAULT_MODEL))
    try:
        return shape_of(model.spec), model.spec.context_length
    finally:
        model.close()


def _fields(plan: "KvPlan") -> dict[str, object]:
    shape = plan.shape
    return {
        "attention": shape.kind,
        "layers": shape.num_layers,
        "heads": shape.num_heads,
        "kv_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "kv_format": plan.kv_format,
        "context": plan.context_length,
        "sequences": plan.num_sequences,
        "blocks": plan.num_blocks,
        "bytes_per_block": plan.bytes_per_block,
        "local_blocks": plan.num_local_blocks,
        "bytes_per_local_block": plan.bytes_per_local_block,
        "bytes_per_token": plan.bytes_per_token,
        "total_bytes": plan.total_bytes,
        "saved_by_sharing_heads": plan.saved_by_sharing,
        "saved_by_format": plan.saved_by_format,
        "saved_by_windows": plan.saved_by_windows,
    }


def _text(plan: "KvPlan") -> str:
    shape = plan.shape
    lines = {
        "attention": f"{shape.kind}: {shape.num_heads} heads, {shape.num_kv_heads} KV heads of {shape.head_dim}, "
        f"{shape.num_layers} layers",
        "format": plan.kv_format,
        "a token": f"{plan.bytes_per_token:,.0f} bytes",
        "a block": f"{plan.bytes_per_block:,} bytes",
        "blocks": f"{plan.num_blocks:,} for {plan.num_sequences:,} x {plan.context_length:,} tokens",
        "total": f"{plan.total_bytes:,} bytes = {plan.total_bytes / 2**30:.4g} GiB",
    }
    if plan.num_local_blocks and not shape.local_window:
        lines["copies"] = (
            f"the first positions and the latest in float16: {plan.num_local_blocks:,} blocks "
            f"of {plan.bytes_per_local_block:,} bytes"
        )
    elif plan.num_local_blocks:
        lines["local"] = (
            f"{sum(shape.local_layers)} layers keep {shape.local_window} positions: {plan.num_local_blocks:,} blocks "
            f"of {plan.bytes_per_local_block:,} bytes"
        )
        lines["saved"] = f"{plan.saved_by_windows:.1%} of what all positions would take"
    if plan.saved_by_sharing:
        lines["saved "] = f"{plan.saved_by_sharing:.1%} of what MHA would take"
    if plan.saved_by_format:
        lines["saved  "] = f"{plan.saved_by_format:.1%} of what 16 bits would take"
    return "\n".join(f"{title:11}{text}" for title, text in lines.items())


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "kv": _kv,
    "speculate": plan_speculate.run,
    "fit": plan_fit.run,
    "quantize": plan_rounding.run_quantize,
    "method": plan_rounding.run_method,
}
