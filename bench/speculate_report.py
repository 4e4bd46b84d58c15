"""Tables of what `bench/speculate.py` measured: speed-ups, regrets, and what happened by kind of text.

A speed-up is a variant's tokens a second over those of plain decoding in the same parts, so that parts with other
variants may stand in one file.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vivace.speculate.text_kind import KINDS
from vivace.types.speculation import SpeculationUsage

ADAPTIVE = "adaptive"
PLAIN = "plain"
CEILING = "ceiling"

Part = dict[str, Any]
Sums = dict[str, float]


def read_parts(path: Path) -> list[Part]:
    """The parts of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def told_of(usage: SpeculationUsage) -> dict[str, float]:
    """Sums of a kind of text that may be added up."""
    names = ("num_turns", "num_tokens", "num_drafted", "num_accepted", "cost")
    tried = {"num_drafted_turns": sum(usage.tried_at[:1]), "num_tried": sum(usage.tried_at)}
    return {name: getattr(usage, name) for name in names} | tried


def brief(part: Part) -> str:
    """One line about a part."""
    shown = {name: f"{speed_up([part], name):.2f}" for name in part["variants"] if name != PLAIN}
    return f"{part['workload']} at {part['streams']}, from {part['first']}: {shown}"


def add_up(parts: Iterable[Part], name: str) -> Sums:
    """Sums of a variant."""
    total: Sums = {}
    for part in parts:
        for key, value in part["variants"][name].items():
            total[key] = total.get(key, 0) + value
    return total


def speed_up(parts: Iterable[Part], name: str, prefix: str = "num_") -> float:
    """Tokens a second over those of plain decoding; `all_`: end to end."""
    mine = [part for part in parts if name in part["variants"]]
    seconds = {"num_": "seconds", "all_": "all_seconds"}[prefix]
    one, plain = add_up(mine, name), add_up(mine, PLAIN)
    if not one or not one[seconds] or not plain[seconds]:
        return float("nan")
    return (one[prefix + "tokens"] / one[seconds]) / (plain[prefix + "tokens"] / plain[seconds])


def print_report(parts: list[Part]) -> None:
    """All tables."""
    if not parts:
        print("nothing was measured")
        return
    groups: dict[tuple[str, int], list[Part]] = {}
    for part in parts:
        groups.setdefault((part["workload"], part["streams"]), []).append(part)
    print_adaptive(groups)
    for names in dict.fromkeys(tuple(part["variants"]) for part in parts if len(part["variants"]) > 2):
        print_regret(groups, names)
    print_kinds(groups)


def print_adaptive(groups: dict[tuple[str, int], list[Part]]) -> None:
    """The adaptive policy against plain decoding, over all parts that have both."""
    print(
        "| workload | streams | prompts | plain tokens/s | adaptive | end to end | drafts a token | drafts that stood |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for (workload, streams), parts in groups.items():
        mine = [part for part in parts if ADAPTIVE in part["variants"]]
        if not mine:
            continue
        plain, adaptive = add_up(mine, PLAIN), add_up(mine, ADAPTIVE)
        rate = plain["num_tokens"] / plain["seconds"] if plain["seconds"] else float("nan")
        stood = adaptive["num_accepted"] / adaptive["num_drafted"] if adaptive["num_drafted"] else float("nan")
        cells = [workload, streams, sum(part["prompts"] for part in mine), f"{rate:.0f}"]
        cells += [f"**{speed_up(mine, ADAPTIVE):.2f}**", f"{speed_up(mine, ADAPTIVE, 'all_'):.2f}"]
        cells += [f"{adaptive['num_drafted'] / adaptive['all_tokens']:.2f}", f"{stood:.2f}"]
        print("| " + " | ".join(map(str, cells)) + " |")


def print_regret(groups: dict[tuple[str, int], list[Part]], variants: Sequence[str]) -> None:
    """Speed-ups in the parts that have just these variants, and what share of the best fixed `adaptive` has."""
    names = [name for name in variants if name != PLAIN]
    print("\n| workload | streams | " + " | ".join(names) + " | best fixed | adaptive of it | regret |")
    print("|---" * (len(names) + 5) + "|")
    for (workload, streams), parts in groups.items():
        mine = [part for part in parts if tuple(part["variants"]) == tuple(variants)]
        if not mine:
            continue
        found = {name: speed_up(mine, name) for name in names}
        speedups = {name: value for name, value in found.items() if not math.isnan(value)}
        fixed = {name: value for name, value in speedups.items() if name.split()[-1].isdigit()}
        best = max([*fixed.values(), 1.0])
        best_name = max(fixed, key=lambda name: fixed[name]) if fixed and best > 1.0 else PLAIN
        most = max(best, *speedups.values())
        cells = [f"{found[name]:.2f}" for name in names]
        share = speedups[ADAPTIVE] / best
        print(
            f"| {workload} | {streams} | {' | '.join(cells)} | {best_name} | {share:.2f} | "
            f"{1 - speedups[ADAPTIVE] / most:.3f} |"
        )


def print_kinds(groups: dict[tuple[str, int], list[Part]]) -> None:
    """What the adaptive policy did by kind of text and language, beside what the chapter expects."""
    columns = ("kind", "language", "streams", "tokens", "turns with drafts", "drafts of such a turn", "acceptance")
    print(f"\n| {' | '.join(columns)} | speed-up by costs | chapter: drafts, acceptance |")
    print("|---" * 9 + "|")
    sums: dict[tuple[str, str, int], Sums] = {}
    for (workload, streams), parts in groups.items():
        language = "zh" if workload.endswith("_zh") else "en"
        for kind, usage in (pair for part in parts for pair in part["kinds"].items()):
            total = sums.setdefault((kind, language, streams), {})
            for key, value in usage.items():
                total[key] = total.get(key, 0) + value
    for row in KINDS:
        for (kind, language, streams), usage in sorted(sums.items()):
            if kind != row.kind:
                continue
            cells = [kind, language, streams, f"{usage['num_tokens']:.0f}"]
            cells += [f"{share_of(usage['num_drafted_turns'], usage['num_turns']):.2f}"]
            cells += [f"{share_of(usage['num_drafted'], usage['num_drafted_turns']):.1f}"]
            cells += [f"{share_of(usage['num_accepted'], usage['num_tried']):.2f}"]
            cells += [f"{usage['num_tokens'] / usage['cost']:.2f}"]
            cells += [f"{row.num_drafts[0]}-{row.num_drafts[1]}, {row.acceptance:g}"]
            print("| " + " | ".join(map(str, cells)) + " |")


def share_of(part: float, whole: float) -> float:
    """Their quotient; NaN of nothing."""
    return part / whole if whole else float("nan")
