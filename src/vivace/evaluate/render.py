"""A quality report as a page for people (HTML, one file without links) and as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import jinja2
import numpy as np

from vivace.evaluate import charts
from vivace.evaluate.report import QualityReport, SpeedFigures

_TEMPLATES = Path(__file__).parent / "templates"
_VERDICTS = (
    (0.002, "indistinguishable", "good"),
    (0.02, "very close", "good"),
    (0.1, "close, with differences that careful readers may notice", "fair"),
    (0.3, "noticeably different", "poor"),
    (float("inf"), "a different model", "poor"),
)
"""(mean KL divergence in nats up to which it holds, words, tone)."""


def verdict(report: QualityReport) -> tuple[str, str]:
    """What the distance from the reference means, in words, and its tone."""
    if report.figures is None or report.figures.kld is None:
        return "measured alone: no reference was named", "fair"
    kld = report.figures.kld
    return next((words, tone) for limit, words, tone in _VERDICTS if kld <= limit)


def render_html(report: QualityReport, missed: list[str] | None = None) -> str:
    """The page; `missed` are sentences about limits that were not kept."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    words, tone = verdict(report)
    return environment.get_template("report.html").render(
        report=report,
        figures=report.figures,
        verdict=words,
        tone=tone,
        missed=missed or [],
        plots=_plots(report),
        megabytes=lambda value: f"{value / 1e6:,.1f}",
    )


def render_plots(report: QualityReport) -> dict[str, str]:
    """The plots of the page as SVG files of their own, by name."""
    beside = report.reference is not None
    return {name: charts.as_file(svg, beside=beside) for name, svg in _plots(report).items()}


def render_markdown(
    report: QualityReport, missed: Sequence[str] = (), pictures: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The figures as tables, with links to pictures.

    Args:
        report: what was measured.
        missed: sentences about limits that were not kept.
        pictures: where the plots of `render_plots` lie, by their names.
    """
    lines = [f"# {report.model}" + ("" if report.reference is None else f" against {report.reference}"), ""]
    lines += [f"{verdict(report)[0].capitalize()}.", ""]
    lines += [line for sentence in missed for line in (f"**Limit missed:** {sentence}.", "")]
    if report.figures is not None:
        lines += [f"Text: {report.text_source}.", "", "| figure | value |", "|---|---|"]
        lines += [f"| {words} | {value} |" for words, value in figure_rows(report)]
    lines += _picture_lines(pictures, "kl", "change")
    if report.tasks:
        lines += ["", "| task | questions | accuracy | reference | recovery | McNemar p |", "|---|---|---|---|---|---|"]
    for name, task in report.tasks.items():
        paired = task.paired
        other = ["", "", ""]
        if paired is not None:
            recovery = "" if paired.recovery is None else f"{paired.recovery:.1%}"
            if paired.recovery_low is not None:
                recovery += f" ({paired.recovery_low:.1%} to {paired.recovery_high:.1%})"
            other = [f"{paired.reference_accuracy:.1%}", recovery, f"{paired.p_value:.3f}"]
        shown = f"{task.accuracy:.1%} ({task.low:.1%} to {task.high:.1%})"
        lines.append(f"| {name} | {task.num_items} | {shown} | {' | '.join(other)} |")
    lines += _picture_lines(pictures, "tasks")
    lines += [*_level_lines(report), *_generation_lines(report), *_speed_lines(report)]
    return "\n".join([*lines, *_picture_lines(pictures, "speed")]) + "\n"


def _picture_lines(pictures: Mapping[str, str], *names: str) -> list[str]:
    found = [(_PICTURES[name], pictures[name]) for name in names if name in pictures]
    return [line for words, link in found for line in ("", f"![{words}]({quote(link)})")]


def figure_rows(report: QualityReport) -> list[tuple[str, str]]:
    """The figures of the text in words, one standard error behind those that have one."""
    assert report.figures is not None
    values = report.figures.as_dict()
    rows = []
    for name, words in _WORDS.items():
        value, error = values[name], values.get(f"{name}_error")
        if value is not None:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
            rows.append((words, shown if error is None else f"{shown} ± {error:.2g}"))
    return rows


def _level_lines(report: QualityReport) -> list[str]:
    if not report.levels:
        return []
    head = "| rows read | positions | perplexity | ratio | KL divergence | same top token |"
    return ["", head, "|---|---|---|---|---|---|"] + [
        f"| {band.rows} | {band.begin} to {band.end - 1} | {band.ppl:.3f} | {band.ppl_ratio:.4f} ± "
        f"{band.ppl_ratio_error:.4f} | {band.kld:.4f} ± {band.kld_error:.4f} | {band.same_top:.1%} |"
        for band in report.levels
    ]


def _generation_lines(report: QualityReport) -> list[str]:
    found = report.generation
    if found is None:
        return []
    lines = [
        "",
        f"| answers | not at an end in {found.most_tokens} tokens | loops | mean tokens |",
        "|---|---|---|---|",
    ]
    for name, figures in (("model", found.model), ("reference", found.reference)):
        if figures is not None:
            lines.append(f"| {name} | {figures.never_stop:.0%} | {figures.loops:.0%} | {figures.mean_tokens:.1f} |")
    if found.length_drift is not None:
        lines += [
            "",
            f"Length changes by {found.length_drift:+.1%}; {found.identical or 0:.0%} of the answers are the same.",
        ]
    return lines


def _speed_lines(report: QualityReport) -> list[str]:
    if not report.speed:
        return []
    lines = ["", "| speed | prompt tok/s | decode tok/s | peak memory MB |", "|---|---|---|---|"]
    return lines + [
        f"| {name} | {speed.prompt:.0f} | {speed.decode:.1f} | {speed.memory_bytes / 1e6:.0f} |"
        for name, speed in report.speed.items()
    ]


def _plots(report: QualityReport) -> dict[str, str]:
    plots = {}
    columns, figures = report.columns, report.figures
    if columns is not None and columns.reference is not None and figures is not None and figures.kld is not None:
        marks = [("mean", figures.kld), ("99 %", figures.kld_99 or 0.0)]
        plots["kl"] = charts.histogram(columns.kl, marks, "KL divergence of a token, nats")
        change = np.exp(columns.own) - np.exp(columns.reference)
        plots["change"] = charts.curve(change, "tokens, from the one that lost most to the one that won most")
    if report.tasks:
        groups = []
        for name, task in report.tasks.items():
            bars = [("model", task.accuracy, task.low, task.high)]
            if task.paired is not None:
                bars.insert(0, ("reference", task.paired.reference_accuracy, 0.0, 0.0))
            groups.append((name, bars))
        plots["tasks"] = charts.grouped_bars(groups, 1.08, percent=True)
    if report.speed:
        plots["speed"] = _speed_plot(report.speed)
    return plots


def _speed_plot(speed: dict[str, SpeedFigures]) -> str:
    order = [name for name in ("reference", "model") if name in speed]
    groups = []
    for words, values in (
        ("prompt", {name: speed[name].prompt for name in order}),
        ("decode", {name: speed[name].decode for name in order}),
        ("memory", {name: speed[name].memory_bytes for name in order}),
    ):
        base = values[order[0]] or 1.0
        groups.append((f"{words} (first bar = 1)", [(name, value / base, 0.0, 0.0) for name, value in values.items()]))
    top = 1.15 * max(bar[1] for _, bars in groups for bar in bars)
    return charts.grouped_bars(groups, top, percent=False)


_PICTURES = {
    "kl": "KL divergence of each token",
    "change": "change of the probability of the text's own tokens",
    "tasks": "right answers by task",
    "speed": "speed and memory",
}
_WORDS = {
    "ppl": "perplexity",
    "reference_ppl": "of the reference",
    "ppl_ratio": "ratio",
    "recovery": "recovery",
    "kld": "KL divergence",
    "kld_99": "99th percentile",
    "kld_max": "worst position",
    "same_top": "same top token",
    "probability_change": "probability change",
    "bytes": "bytes",
    "reference_bytes": "of the reference",
    "num_tokens": "tokens scored",
}
