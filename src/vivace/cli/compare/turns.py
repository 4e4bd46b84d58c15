"""Measures rows in turns, A B A B, so that whatever slows the machine slows all of them alike."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vivace.cli.compare.cases import Case, figures_of, prompts_of
from vivace.cli.compare.child_process import PeerProcess
from vivace.cli.compare.environments import PeerError
from vivace.cli.compare.machine import load_average, moment, others_share, wait_for_quiet


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a run counts.

    Args:
        turns: runs of each row and case that count.
        quiet: largest share of the machine that others may use during a run.
        patience_s: longest wait for others to become quiet before a run.
        retries: how often a disturbed run is repeated; the least disturbed one is kept.
    """

    turns: int = 5
    quiet: float = 0.1
    patience_s: float = 0.0
    retries: int = 0


@dataclass(slots=True)
class Runs:
    """The runs of one figure of one row, in order; `others` and `load` are how busy the machine was beside each."""

    values: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)


Figures = dict[str, dict[str, Runs]]
"""Figure, then row, to its runs."""


@dataclass(slots=True)
class Failures:
    """Rows that stopped working, with the reason; they are left out from then on."""

    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one row: its figures, and how busy the machine was beside it."""

    figures: dict[str, float]
    others: float
    load: float


class RunKeeper(Protocol):
    """Keeps runs, so that a comparison that was stopped need not repeat them."""

    def run_of(self, case: Case, turn: int, row: str) -> Run | None:
        """A run that was kept."""
        ...

    def keep(self, case: Case, turn: int, row: str, run: Run) -> None:
        """Keep a run."""
        ...


def measure(
    rows: Mapping[str, PeerProcess],
    cases: Sequence[Case],
    conditions: Conditions,
    *,
    encode: Callable[[str], Sequence[int]],
    failures: Failures,
    progress: Callable[[str], None],
    kept: RunKeeper | None = None,
) -> Figures:
    """Run every case on every row, `turns` times; every second turn goes through the rows backwards.

    Args:
        rows: name to running peer.
        cases: what to run.
        conditions: when a run counts.
        encode: text to ids, for the prompts.
        failures: rows that fail are added here.
        progress: told one line a run.
        kept: runs of an earlier start, which are not repeated; those of this one are added. None: nothing is kept.
    """
    figures: Figures = {}
    for case in cases:
        known = {
            (turn, name): run
            for turn in range(conditions.turns)
            for name in rows
            if kept is not None and (run := kept.run_of(case, turn, name)) is not None
        }
        for turn in range(-1, conditions.turns):  # turn -1 warms up
            order = list(rows)[:: 1 if turn % 2 == 0 else -1]
            prompts = prompts_of(case, turn, encode)
            for name in order:
                is_complete = all((later, name) in known for later in range(conditions.turns))
                if name in failures.reasons or (turn < 0 and is_complete):
                    continue
                run = known.get((turn, name))
                try:
                    run = run or _run(rows[name], case, prompts, conditions)
                except PeerError as error:
                    failures.reasons[name] = error.what
                    continue
                if turn < 0:
                    continue
                if kept is not None and (turn, name) not in known:
                    kept.keep(case, turn, name, run)
                _add(figures, name, run)
                said = ", ".join(f"{figure} {value:.0f}" for figure, value in run.figures.items())
                progress(f"turn {turn + 1}, {name}: {said} tokens/s (others {run.others:.0%}, load {run.load:.1f})")
    return figures


def _add(figures: Figures, name: str, run: Run) -> None:
    for figure, value in run.figures.items():
        runs = figures.setdefault(figure, {}).setdefault(name, Runs())
        runs.values.append(value)
        runs.others.append(run.others)
        runs.load.append(run.load)


def _run(row: PeerProcess, case: Case, prompts: Sequence[Sequence[int]], conditions: Conditions) -> Run:
    """One run; again while others disturb it and retries are left."""
    best: Run | None = None
    for _ in range(conditions.retries + 1):
        if conditions.patience_s > 0:
            wait_for_quiet(conditions.quiet, conditions.patience_s)
        before = moment(row.pid)
        answer = row.generate(prompts, case.new_tokens)
        run = Run(figures_of(case, answer.times), others_share(before, moment(row.pid)), load_average())
        if best is None or run.others < best.others:
            best = run
        if best.others <= conditions.quiet:
            break
    assert best is not None
    return best
