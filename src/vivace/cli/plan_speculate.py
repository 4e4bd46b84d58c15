"""`vivace plan speculate`: what drafts can bring, by the chapter's formula and by the right expectation."""

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.plan.speculate import SpeculationPlan

HELP = "what speculative decoding can bring"
DESCRIPTION = (
    "What k drafts of a given acceptance bring, and which draft speed pays. With --model the steps of that model are "
    "timed here; otherwise a verifying step is taken to cost as much as a plain one."
)

MEASURED_ROWS = (1, 2, 3, 4, 5, 7, 9, 13, 17)
CONTEXT_TOKENS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--acceptance", type=float, default=0.7, metavar="A", help="share of drafts that stand (0.7)")
    parser.add_argument("--drafts", type=int, default=4, metavar="K", help="drafts of a step (default: 4)")
    parser.add_argument(
        "--draft-speed",
        type=float,
        default=10.0,
        metavar="B",
        help="how many times faster than the model a draft token is; inf for look-up (default: 10)",
    )
    parser.add_argument(
        "--model", metavar="M", help="time the steps of this model: a catalogue name, a file or a folder"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Work it out and print it.

    Raises:
        VivaceError: a number out of range, or a model that cannot be loaded.
    """
    from vivace.plan.speculate import plan_speculation

    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads is {arguments.threads}.", "Give at least 1.")
    plan_speculation(arguments.acceptance, arguments.drafts, arguments.draft_speed)  # refuse before anything is loaded
    costs = None if arguments.model is None else _measure(arguments)
    plan = plan_speculation(arguments.acceptance, arguments.drafts, arguments.draft_speed, costs)
    print(json.dumps(_fields(plan, costs)) if arguments.json else _text(plan, costs))
    return 0


def _measure(arguments: argparse.Namespace) -> dict[int, float]:
    from vivace.execute.native import NativeExecutor
    from vivace.files.catalogue import resolve
    from vivace.files.open import open_model
    from vivace.graph.build import build_graph
    from vivace.speculate.measure_costs import measure_step_costs
    from vivace.types.step import BLOCK_SIZE

    loaded = open_model(resolve(arguments.model))
    rows = CONTEXT_TOKENS + max(MEASURED_ROWS)
    executor = NativeExecutor(
        build_graph(loaded.spec),
        loaded.weights,
        num_blocks=-(-rows // BLOCK_SIZE),
        max_rows=rows,
        num_threads=arguments.threads,
    )
    try:
        return measure_step_costs(executor, MEASURED_ROWS, context=CONTEXT_TOKENS)
    finally:
        executor.close()


def _fields(plan: "SpeculationPlan", costs: dict[int, float] | None) -> dict[str, object]:
    fields = asdict(plan)
    fields["draft_speed"] = _finite(plan.draft_speed)
    fields["rows"] = [asdict(row) | {"draft_speed": _finite(row.draft_speed), "pays": row.pays} for row in plan.rows]
    return fields | {"step_ms": costs}


def _finite(speed: float) -> float | None:
    """JSON has no infinity: null stands for look-up."""
    return speed if math.isfinite(speed) else None


def _text(plan: "SpeculationPlan", costs: dict[int, float] | None) -> str:
    lines = [
        f"{plan.num_drafts} drafts, {plan.acceptance:g} of them stand, a draft is {plan.draft_speed:g} times faster",
        f"chapter 18.1.4     {plan.chapter:.2f}x   (1 + a k) / (1 + k / b): counts drafts after a rejection",
        f"expected           {plan.expected:.2f}x   {plan.expected_tokens:.2f} tokens a step that costs "
        f"{plan.num_drafts / plan.draft_speed + plan.verify_cost:.2f} plain ones",
        f"break-even         a draft may cost {plan.break_even_cost:.2f} plain steps",
    ]
    if costs is not None:
        lines.append("measured steps     " + ", ".join(f"{rows}: {ms:.1f} ms" for rows, ms in costs.items()))
    lines.append("draft speed   best k   speed-up")
    for row in plan.rows:
        name = f"{row.draft_speed:g}x" if math.isfinite(row.draft_speed) else "look-up"
        lines.append(
            f"{name:>11}   {row.best_drafts:6d}   {row.speedup:7.2f}x" + ("" if row.pays else "   does not pay")
        )
    return "\n".join(lines)
