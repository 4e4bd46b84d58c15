"""Charts as SVG text, drawn from numbers without a plotting library, in the colours of the page that holds them."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 560, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 14, 34
_LABEL = 60  # the most that the name and value of a mark take
_ROOM = 0.09  # of the height of the tallest bar, for the line of text of a mark
_STYLE = """
svg { background: #fff; font-family: system-ui, "Noto Sans CJK SC", sans-serif; }
text { fill: #5b6469; font-size: 11px; } .strong { fill: #1d2125; font-weight: 600; }
.bar { fill: #0f766e; } .beside .b0 { fill: #b8c4c2; }
.axis { stroke: #d9dcd8; } .mark { stroke: #a4161a; stroke-dasharray: 4 3; }
.line { fill: none; stroke: #0f766e; stroke-width: 2; } .whisker { stroke: #1d2125; stroke-width: 1.5; }
"""


def histogram(values: NDArray[np.float64], marks: Sequence[tuple[str, float]], unit: str) -> str:
    """How positive values are spread, on a logarithmic axis, with named marks."""
    floor = 1e-6
    logs = np.log10(np.maximum(values, floor))
    low, high = math.floor(logs.min()), max(math.ceil(logs.max()), math.floor(logs.min()) + 1)
    counts, edges = np.histogram(logs, bins=40, range=(low, high))
    scale = _Scale(low, high, 0, max(int(counts.max()), 1) * (1 + _ROOM * len(marks)))  # the names stand over the bars
    bars = [
        f'<rect class="bar" x="{scale.x(left):.1f}" y="{scale.y(count):.1f}" '
        f'width="{scale.x(right) - scale.x(left) - 1:.1f}" height="{scale.y(0) - scale.y(count):.1f}"/>'
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    ticks = [(10.0**power, scale.x(power)) for power in range(low, high + 1)]
    axis = [_text(x, HEIGHT - 16, _power(value), "middle") for value, x in ticks]
    axis.append(_text(WIDTH / 2, HEIGHT - 2, unit, "middle"))
    lines = []
    for number, (name, value) in enumerate(marks):
        x = scale.x(math.log10(max(value, floor)))
        is_left = number == 0 if _LEFT + _LABEL < x < WIDTH - _RIGHT - _LABEL else x > WIDTH / 2
        beside = (x - 4, "end") if is_left else (x + 4, "start")  # the first looks away from those that follow
        top = _TOP - 2 + 13 * number
        lines.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{scale.y(0):.1f}"/>')
        lines.append(_text(beside[0], top + 9, f"{name} {value:.3g}", beside[1], "strong"))
    return _svg([*bars, _base(scale), *axis, *lines], f"histogram of {unit}")


def curve(values: NDArray[np.float64], unit: str, *, quantiles: int = 101) -> str:
    """Quantiles of values that may be negative: what share of tokens changed by less than so much."""
    shares = np.linspace(0, 1, quantiles)
    levels = np.quantile(values, shares)
    reach = max(float(np.abs(levels[1:-1]).max()), 1e-6)
    scale = _Scale(0, 1, -reach, reach)
    points = " ".join(
        f"{scale.x(share):.1f},{scale.y(min(max(level, -reach), reach)):.1f}"
        for share, level in zip(shares, levels, strict=True)
    )
    zero = scale.y(0)
    labels = [_text(_LEFT - 6, scale.y(v) + 4, f"{v:+.2g}" if v else "0", "end") for v in (-reach, 0, reach)]
    ticks = [_text(scale.x(s), HEIGHT - 16, f"{s:.0%}", "middle") for s in (0, 0.25, 0.5, 0.75, 1)]
    return _svg(
        [
            f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
            f'<polyline class="line" points="{points}"/>',
            *labels,
            *ticks,
            _text(WIDTH / 2, HEIGHT - 2, unit, "middle"),
        ],
        unit,
    )


Bar = tuple[str, float, float, float]
"""(legend, value, low, high) of one bar; low and high are its whisker."""


def grouped_bars(groups: Sequence[tuple[str, Sequence[Bar]]], top: float, *, percent: bool) -> str:
    """Bars in groups, each with its whisker and its value over it; `top` is where the axis ends."""
    scale = _Scale(0, max(len(groups), 1), 0, top or 1.0)
    drawn = []
    for place, (name, bars) in enumerate(groups):
        width = (scale.x(1) - scale.x(0)) * 0.7 / max(len(bars), 1)
        start = scale.x(place) + (scale.x(1) - scale.x(0)) * 0.15
        for number, (legend, value, low, high) in enumerate(bars):
            x, y = start + number * width, scale.y(value)
            label = f"{value:.1%}" if percent else f"{value:,.4g}"
            over = f"{value:.0%}" if percent else f"{value:,.3g}"
            drawn.append(
                f'<rect class="bar b{number}" x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                f'height="{scale.y(0) - y:.1f}"><title>{escape(f"{name}, {legend}: {label}")}</title></rect>'
            )
            middle = x + width / 2 - 1
            if high > low:
                drawn.append(
                    f'<line class="whisker" x1="{middle:.1f}" x2="{middle:.1f}" y1="{scale.y(low):.1f}" '
                    f'y2="{scale.y(min(high, top)):.1f}"/>'
                )
            drawn.append(_text(middle, min(y, scale.y(min(high, top))) - 3, over, "middle"))
        drawn.append(_text(scale.x(place + 0.5), HEIGHT - 16, name, "middle"))
    return _svg([*drawn, _base(scale)], "bars of " + ", ".join(name for name, _ in groups))


def as_file(svg: str, *, beside: bool) -> str:
    """A chart that stands alone, with its name space and colours; `beside` a reference, first bars are its own."""
    opened, end, rest = svg.removeprefix("<svg ").partition(">\n")
    size = f'width="{WIDTH}" height="{HEIGHT}" class="{"beside" if beside else "alone"}"'
    named = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {opened}'
    return f"{named}{end}<style>{_STYLE}</style>\n{rest}\n"


class _Scale:
    """From values to places in the picture."""

    def __init__(self, low_x: float, high_x: float, low_y: float, high_y: float) -> None:
        self._low_x, self._low_y = low_x, low_y
        self._per_x = (WIDTH - _LEFT - _RIGHT) / (high_x - low_x)
        self._per_y = (HEIGHT - _TOP - _BOTTOM) / (high_y - low_y)

    def x(self, value: float) -> float:
        return _LEFT + (value - self._low_x) * self._per_x

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self._low_y) * self._per_y


def _base(scale: _Scale) -> str:
    y = scale.y(0)
    return f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _power(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"1e{round(math.log10(value))}"


def _svg(parts: Sequence[str], title: str) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">\n{body}\n</svg>'
