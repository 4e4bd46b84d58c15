"""A finished comparison: as a table for people, JSON for programs, and a plot."""

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivace.cli.compare.quality import RowQuality
from vivace.cli.compare.sanity import GreedyAnswer
from vivace.cli.compare.turns import Figures, Runs

_NAME_WIDTH = 26
_WIDTH = 20
_PANELS_A_LINE = 4


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known of a row beside its speed."""

    engine: Mapping[str, Any]
    start_s: float
    load_s: float
    peak_bytes: int
    answer: GreedyAnswer | None
    quality: RowQuality | None = None


@dataclass(slots=True)
class Comparison:
    """Everything one run of `vivace bench compare` found."""

    machine: dict[str, Any]
    model: str
    ourselves: str
    conditions: dict[str, Any]
    facts: dict[str, RowFacts] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, figure: str, row: str) -> float | None:
        """Our median over that row's; None where either is missing."""
        rows = self.figures[figure]
        if self.ourselves not in rows or row not in rows or row == self.ourselves:
            return None
        return rows[self.ourselves].median / rows[row].median

    def as_json(self) -> dict[str, Any]:
        """Plain values, every run included."""
        return {
            "machine": self.machine,
            "model": self.model,
            "conditions": self.conditions,
            "rows": {name: dataclasses.asdict(facts) for name, facts in self.facts.items()},
            "absent": self.absent,
            "figures": {
                figure: {row: self._runs_as_json(figure, row, runs) for row, runs in rows.items()}
                for figure, rows in self.figures.items()
            },
        }

    def _runs_as_json(self, figure: str, row: str, runs: Runs) -> dict[str, Any]:
        ratio = self.ratio(figure, row)
        return {
            "tokens_per_s": runs.median,
            "vivace_is_faster_by": ratio,
            "runs": runs.values,
            "others_share": runs.others,
            "load_average": runs.load,
        }


def as_table(comparison: Comparison) -> str:
    """Rows down, figures across; under each median its spread, beside it our ratio over it."""
    figures = list(comparison.figures)
    width = max([_WIDTH, *(len(figure) + 2 for figure in figures)])
    head = "tokens/s".ljust(_NAME_WIDTH) + "".join(figure.rjust(width) for figure in figures)
    lines = [head + "start s".rjust(9) + "peak MiB".rjust(10) + "  answer"]
    for name, facts in comparison.facts.items():
        cells = "".join(_cell(comparison, figure, name).rjust(width) for figure in figures)
        answer = _answer(comparison, name)
        memory = f"{facts.peak_bytes / 2**20:.0f}".rjust(10)
        lines.append(name.ljust(_NAME_WIDTH) + cells + f"{facts.start_s:.2f}".rjust(9) + memory + f"  {answer}")
        lines.append(" " * _NAME_WIDTH + "".join(_spread(comparison, figure, name).rjust(width) for figure in figures))
    lines.append(f"medians of {comparison.conditions['turns']} turns; (N x): {comparison.ourselves} is N times as fast")
    busy = [share for rows in comparison.figures.values() for runs in rows.values() for share in runs.others]
    load = [value for rows in comparison.figures.values() for runs in rows.values() for value in runs.load]
    if busy:
        lines.append(
            f"others used {statistics.median(busy):.0%} of the machine beside a run (worst {max(busy):.0%}); "
            f"load average {min(load):.1f} to {max(load):.1f}"
        )
    lines += _quality_lines(comparison)
    lines += [f"absent: {name}: {reason}" for name, reason in comparison.absent.items()]
    return "\n".join(lines)


def _quality_lines(comparison: Comparison) -> list[str]:
    told = {name: facts.quality for name, facts in comparison.facts.items() if facts.quality is not None}
    if not told:
        return ["quality of the rows: not measured (--quality TEXT)"]
    positions = next(iter(told.values())).num_positions
    lines = [
        f"against the file's weights in float32, {positions} positions of {comparison.conditions['quality_text']}:"
    ]
    for name in comparison.facts:
        found = told.get(name)
        said = "gives no logits"
        if found is not None:
            change = 100 * (found.perplexity_ratio - 1)
            said = f"KL {found.mean_kl:.6f}, same top token {found.same_top:.2%}, perplexity {change:+.2f} %"
        lines.append(name.ljust(_NAME_WIDTH) + said)
    return lines


def _answer(comparison: Comparison, row: str) -> str:
    """Whether a row makes sense, or how long it agrees with ourselves where sense cannot be told."""
    answer = comparison.facts[row].answer
    if answer is None:
        return "-"
    if answer.sane is not None:
        return "sane" if answer.sane else "NOT SANE"
    ours = comparison.facts.get(comparison.ourselves)
    agreeing = None if ours is None or ours.answer is None else answer.num_agreeing(ours.answer)
    return "random weights" + ("" if agreeing is None else f", first {agreeing} of {len(answer.ids)} as ours")


def _cell(comparison: Comparison, figure: str, row: str) -> str:
    if row not in comparison.figures[figure]:
        return "-"
    ratio = comparison.ratio(figure, row)
    beside = "" if ratio is None else f" ({ratio:.2f} x)"
    return f"{comparison.figures[figure][row].median:.0f}{beside}"


def _spread(comparison: Comparison, figure: str, row: str) -> str:
    if row not in comparison.figures[figure]:
        return ""
    values = comparison.figures[figure][row].values
    return f"{min(values):.0f} to {max(values):.0f}"


def draw(comparison: Comparison, path: Path) -> None:
    """One panel a figure, one bar a row, whiskers from the slowest to the fastest run; needs matplotlib."""
    from matplotlib.figure import Figure

    figures = comparison.figures
    names = [name for name in comparison.facts if any(name in rows for rows in figures.values())]
    columns = min(_PANELS_A_LINE, len(figures))
    lines = -(-len(figures) // columns)
    canvas = Figure(figsize=(3.0 * columns + 2.0, lines * (0.4 * len(names) + 1.2)), layout="constrained")
    panels = list(canvas.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for unused in panels[len(figures) :]:
        unused.set_visible(False)
    for panel, (figure, rows) in zip(panels, figures.items(), strict=False):
        medians = [rows[name].median if name in rows else 0.0 for name in names]
        low = [medians[i] - min(rows[name].values) if name in rows else 0.0 for i, name in enumerate(names)]
        high = [max(rows[name].values) - medians[i] if name in rows else 0.0 for i, name in enumerate(names)]
        colours = ["#c2410c" if name.startswith("vivace") else "#64748b" for name in names]
        panel.barh(names, medians, xerr=(low, high), color=colours, ecolor="#1e293b", capsize=2)
        panel.set_title(figure, fontsize=10)
        panel.set_xlabel("tokens/s")
    panels[0].invert_yaxis()  # shared: the first row of the table is the topmost
    canvas.suptitle(f"{comparison.model}, {comparison.machine['threads']} threads", fontsize=10)
    canvas.savefig(path, dpi=130)
