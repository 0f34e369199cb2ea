"""The plot of `benchmarks/scale.py`: costs over sizes, both on logarithmic axes, so that a slope is an exponent."""

import math
from collections.abc import Iterable, Mapping
from html import escape

Points = Mapping[int, float]

WIDTH, PANEL_WIDTH, PANEL_HEIGHT, LINE = 720, 250, 150, 15
COLOURS = ("#1f6fb2", "#d1571b", "#2f8f4e", "#8a4fb0", "#5b6470", "#b58a00")
UNITS = {"cpu_s": "CPU s", "ms": "ms", "MB": "MB"}
"""Word in the name of a cost -> its unit. Other costs are counts."""


def unit_of(name: str) -> str:
    """Return the unit of a cost."""
    return next((unit for word, unit in UNITS.items() if word in name.split()), "count")


def draw(costs: Iterable[tuple[str, str, Points]]) -> str:
    """Return an SVG, 720 pixels wide, of some (name of a cost, what grows, size -> cost).

    Those with the same unit and the same thing that grows share a panel.
    """
    panels: dict[tuple[str, str], dict[str, Points]] = {}
    for name, grows, points in costs:
        positive = {size: cost for size, cost in points.items() if cost > 0}
        if len(positive) > 1:
            unit = unit_of(name)
            plain = " ".join(word for word in name.split() if UNITS.get(word) != unit).rstrip(":,")
            panels.setdefault((grows, unit), {})[plain] = positive
    parts, top, row = [], 0, list(panels.items())
    while row:
        pair, row = row[:2], row[2:]
        legend = LINE * max(len(curves) for _, curves in pair)
        for column, ((grows, unit), curves) in enumerate(pair):
            parts += _panel(62 + column * WIDTH // 2, top + 22 + legend, unit, grows, curves)
        top += 22 + legend + PANEL_HEIGHT + 52
    size = f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _panel(left: float, top: float, unit: str, grows: str, curves: Mapping[str, Points]) -> list[str]:
    """Return the elements of a panel; its legend is above `top`."""
    sizes = [math.log10(size) for points in curves.values() for size in points]
    costs = [math.log10(cost) for points in curves.values() for cost in points.values()]
    first, last = min(sizes), max(sizes)
    low, high = math.floor(min(costs)), max(math.ceil(max(costs)), math.floor(min(costs)) + 1)

    def at(size: float, cost: float) -> tuple[float, float]:
        x = left + PANEL_WIDTH * (math.log10(size) - first) / (last - first)
        return x, top + PANEL_HEIGHT * (high - math.log10(cost)) / (high - low)

    bottom, right = top + PANEL_HEIGHT, left + PANEL_WIDTH
    parts = []
    for power in range(low, high + 1, max(1, (high - low) // 4)):
        y = at(10**first, 10.0**power)[1]
        parts.append(f'<path d="M{left:g} {y:.1f}H{right:g}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    parts.append(f'<path d="M{left:g} {top:g}V{bottom:g}H{right:g}" fill="none" stroke="#555"/>')
    for size in sorted({size for points in curves.values() for size in points}):
        x = at(size, 10.0**low)[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15:g}" text-anchor="middle">{_short(size)}</text>')
    middle = f"{left - 46:g} {(top + bottom) / 2:g}"
    parts.append(f'<text transform="translate({middle})rotate(-90)" text-anchor="middle">{escape(unit)}</text>')
    parts.append(f'<text x="{(left + right) / 2:g}" y="{bottom + 32:g}" text-anchor="middle">{escape(grows)}</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour, row = COLOURS[number % len(COLOURS)], top - 8 - LINE * (len(curves) - 1 - number)
        places = [at(*point) for point in sorted(points.items())]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<path d="M{left:g} {row - 4:g}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{left + 22:g}" y="{row:g}">{escape(name)}</text>')
    return parts


def _short(size: int) -> str:
    """Return a size for an axis: a power of ten as such, anything else as a number."""
    power = round(math.log10(size))
    return (
        "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(power)) if size == 10**power >= 10**4 else f"{size:,}"
    )
