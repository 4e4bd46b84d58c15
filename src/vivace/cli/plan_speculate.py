"""`vivace plan speculate`: what drafts can bring, by the chapter's formula and by the right expectation."""

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.plan.draft_sizes import SizeRow
    from vivace.plan.speculate import SpeculationPlan

HELP = "what speculative decoding can bring"
DESCRIPTION = (
    "What k drafts of a given acceptance bring, and which draft speed pays. With --model the steps of that model are "
    "timed here, and a table says which size of draft model pays; otherwise a verifying step is taken to cost as much "
    "as a plain one."
)

DEFAULT_ACCEPTANCE = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--acceptance", type=float, metavar="A", help="share of drafts that stand (default: 0.7)")
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
    parser.add_argument("--draft", metavar="M2", help="with --model: time this draft model too, and try its guesses")
    parser.add_argument(
        "--draft-sizes",
        metavar="LIST",
        help="with --model: weights of draft models to think of, such as 10M,30M:0.6 with an acceptance of their own "
        "(default: 1/16 to 1/2 of the model's)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Work it out and print it.

    Raises:
        VivaceError: a number out of range, or a model that cannot be loaded.
    """
    from vivace.cli.speculate_costs import measure_steps, read_sizes
    from vivace.plan.draft_sizes import rank_sizes
    from vivace.plan.speculate import plan_speculation

    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads is {arguments.threads}.", "Give at least 1.")
    if arguments.model is None and (arguments.draft or arguments.draft_sizes):
        raise ConfigError("--draft and --draft-sizes are measured beside a model.", "Name one with --model.")
    acceptance = DEFAULT_ACCEPTANCE if arguments.acceptance is None else arguments.acceptance
    wanted = read_sizes(arguments.draft_sizes) if arguments.draft_sizes else []
    plan_speculation(acceptance, arguments.drafts, arguments.draft_speed)  # refuse before anything is loaded
    costs: dict[int, float] | None = None
    sizes: tuple[SizeRow, ...] = ()
    if arguments.model is not None:
        steps, draft = measure_steps(arguments.model, arguments.draft, arguments.threads, arguments.acceptance)
        costs = steps.step_ms
        drafts = [*steps.sizes(wanted, acceptance), *([] if draft is None else [draft])]
        sizes = rank_sizes(drafts, arguments.drafts, costs)
    plan = plan_speculation(acceptance, arguments.drafts, arguments.draft_speed, costs)
    print(json.dumps(_fields(plan, costs, sizes)) if arguments.json else _text(plan, costs, sizes))
    return 0


def _fields(plan: "SpeculationPlan", costs: dict[int, float] | None, sizes: "tuple[SizeRow, ...]") -> dict[str, object]:
    fields = asdict(plan)
    fields["draft_speed"] = _finite(plan.draft_speed)
    fields["rows"] = [asdict(row) | {"draft_speed": _finite(row.draft_speed), "pays": row.pays} for row in plan.rows]
    drafts = [asdict(row) | {"pays": row.pays} for row in sizes]
    return fields | {"step_ms": costs, "draft_sizes": drafts if sizes else None}


def _finite(speed: float) -> float | None:
    """JSON has no infinity: null stands for look-up."""
    return speed if math.isfinite(speed) else None


def _text(plan: "SpeculationPlan", costs: dict[int, float] | None, sizes: "tuple[SizeRow, ...]") -> str:
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
    return "\n".join(lines + _size_lines(sizes))


def _size_lines(rows: "tuple[SizeRow, ...]") -> list[str]:
    from vivace.plan.draft_sizes import best_of

    if not rows:
        return []
    width = max(len("draft model"), *(len(row.draft.name) for row in rows))
    lines = ["", f"{'draft model':>{width}}   {'MB read':>7}   a pass   stand   best k   speed-up   breaks even at"]
    for row in rows:
        even = "never" if row.break_even is None else f"{row.break_even:.2f}"
        lines.append(
            f"{row.draft.name:>{width}}   {row.draft.num_bytes / 1e6:7.1f}   {row.draft.cost:6.2f}   "
            f"{row.draft.acceptance:5.2f}   {row.best_drafts:6d}   {row.speedup:7.2f}x   {even:>14}"
            + ("   measured" if row.draft.is_measured else "   predicted")
            + ("" if row.pays else ", does not pay")
        )
    best = best_of(rows)
    if best is None:
        return [*lines, "none of these draft models pays"]
    return [*lines, f"{best.draft.name} pays most: {best.speedup:.2f}x with {best.best_drafts} drafts a step"]
