"""Line charts as SVG: linear or logarithmic axis, round ticks, lines that differ in colour and dashes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = list[tuple[int, float]]
"""(step, value)."""

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 26
STYLES = 8
"""Number of line styles in page.css."""


@dataclass(frozen=True)
class LineChart:
    """One chart with its legend."""

    title: str
    svg: str
    legend: list[tuple[str, str]]
    """(CSS class of the line, its name)."""


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    last_step: int,
    *,
    stage_change: int | None,
    logarithmic: bool,
    styles: Sequence[int] | None = None,
) -> LineChart:
    """Draw named lines over steps.

    Args:
        title: title of the chart.
        lines: name -> points; no line is empty.
        last_step: right end of the horizontal axis.
        stage_change: first step of stage 2, which is marked; None if there is none.
        logarithmic: whether the vertical axis is logarithmic; then all values must be positive.
        styles: style of each line, below STYLES; by default 0, 1, 2, ...
    """
    classes = [f"line-{number}" for number in (styles or range(len(lines)))]
    values = [value for points in lines.values() for _, value in points]
    ticks = _log_ticks(min(values), max(values)) if logarithmic else _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x_of(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(last_step, 1)

    def y_of(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick_label(tick)}</text>')
    if stage_change is not None:
        x = x_of(stage_change)
        parts.append(f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x + 4:.1f}" y="{TOP + 11}">stage 2</text>')
    for css_class, points in zip(classes, lines.values()):
        path = " ".join(f"{x_of(step):.1f},{y_of(value):.1f}" for step, value in points)
        parts.append(f'<polyline class="{css_class}" points="{path}"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step {last_step:,}</text></svg>')
    return LineChart(title, "".join(parts), list(zip(classes, lines)))


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers that enclose both values."""
    if not high > low:
        high, low = high + max(abs(high), 1e-3) * 0.05, low - max(abs(low), 1e-3) * 0.05
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return about five powers of ten that enclose both values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    step = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + step, step)]


def _tick_label(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
