"""Training curves as SVG, drawn from the metrics.jsonl of a run. Lines with other or missing keys are left out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsm.config import REGULARISERS

PANELS: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("loss", "Loss: annealed −ELBO and its reconstruction term", ("loss", "reconstruction"), False),
    ("kl", "KL terms, not annealed", ("kl_pose", "kl_static", "kl_dynamics", *REGULARISERS), True),
    ("weight", "Annealed weights", ("weight_pose", "weight_static", "weight_dynamics"), True),
    ("temperature", "Softmax temperature", ("temperature",), False),
)
"""Name, title, keys, and whether the axis is logarithmic."""

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 26
MOST_POINTS = 300
STYLES = 8
"""Lines that differ in colour and dashes."""


@dataclass(frozen=True)
class Panel:
    """One drawing."""

    title: str
    svg: str
    legend: list[tuple[str, str]]
    """(CSS class of the line, its name)."""


def read_records(text: str) -> list[dict[str, Any]]:
    """The `train` and `validation` records of metrics.jsonl, with a step that counts over both stages."""
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
            record["overall_step"] = int(record.get("overall_step", record["step"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        records.append(record)
    return records


def panels(records: list[dict[str, Any]]) -> list[Panel]:
    """A drawing for each group of keys that the records hold."""
    trained = [record for record in records if record.get("kind", "train") == "train"]
    measured = [record for record in records if record.get("kind") == "validation"]
    if not trained:
        return []
    last = max(record["overall_step"] for record in trained)
    second = min((record["overall_step"] for record in trained if record.get("stage") == 2), default=None)
    drawn = []
    for name, title, keys, logarithmic in PANELS:
        lines = {key.replace("_", " "): _points(trained, key, logarithmic) for key in keys}
        if name == "loss":
            lines["validation −ELBO"] = [(step, -value) for step, value in _points(measured, "elbo", False)]
        lines = {key: points for key, points in lines.items() if points}
        if lines:
            legend = [(f"line-{number}", key) for number, key in enumerate(lines)]
            drawn.append(Panel(title, _svg(title, list(lines.values()), last, second, logarithmic), legend))
    return drawn


OVERLAID: tuple[tuple[str, str, str, bool], ...] = (
    ("validation −ELBO", "validation", "elbo", False),
    ("Loss, annealed", "train", "loss", False),
    ("Reconstruction", "train", "reconstruction", False),
    ("KL of the static code", "train", "kl_static", True),
    ("KL of the pose", "train", "kl_pose", True),
    ("KL of the dynamics code", "train", "kl_dynamics", True),
)
"""Title, kind of record, key, and whether the axis is logarithmic."""


def overlaid(runs: Mapping[str, list[dict[str, Any]]]) -> list[Panel]:
    """One drawing for each value that was logged, with a line per run; a change of stage that all share is marked."""
    steps = [record["overall_step"] for records in runs.values() for record in records]
    changes = {
        min((record["overall_step"] for record in records if record.get("stage") == 2), default=None)
        for records in runs.values()
        if records
    }
    second = next(iter(changes)) if len(changes) == 1 else None
    drawn = []
    for title, kind, key, logarithmic in OVERLAID:
        lines = {}
        for name, records in runs.items():
            chosen = [record for record in records if record.get("kind", "train") == kind]
            points = _points(chosen, key, logarithmic)
            if points:
                lines[name] = [(step, -value) for step, value in points] if key == "elbo" else points
        if lines:
            # The dashes of a line are those of its run in every drawing.
            styles = [list(runs).index(name) % STYLES for name in lines]
            svg = _svg(title, list(lines.values()), max(steps), second, logarithmic, styles)
            drawn.append(Panel(title, svg, [(f"line-{style}", name) for style, name in zip(styles, lines)]))
    return drawn


def _points(records: list[dict[str, Any]], key: str, positive: bool) -> list[tuple[int, float]]:
    """(step, value), thinned to what a screen can show, each the mean of its neighbours."""
    found = [
        (record["overall_step"], float(record[key])) for record in records if isinstance(record.get(key), int | float)
    ]
    found = [(step, value) for step, value in found if math.isfinite(value) and (value > 0 or not positive)]
    bin_size = max(1, math.ceil(len(found) / MOST_POINTS))
    bins = [found[start : start + bin_size] for start in range(0, len(found), bin_size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in bins]


def _svg(
    title: str,
    lines: list[list[tuple[int, float]]],
    last: int,
    second: int | None,
    logarithmic: bool,
    styles: Sequence[int] | None = None,
) -> str:
    values = [value for points in lines for _, value in points]
    ticks = _log_ticks(min(values), max(values)) if logarithmic else _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def across(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1)

    def down(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    for tick in ticks:
        y = down(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(tick)}</text>')
    if second is not None:
        x = across(second)
        parts.append(f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x + 4:.1f}" y="{TOP + 11}">stage 2</text>')
    for number, points in zip(styles or range(len(lines)), lines):
        path = " ".join(f"{across(step):.1f},{down(value):.1f}" for step, value in points)
        parts.append(f'<polyline class="line-{number}" points="{path}"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step {last:,}</text></svg>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose both."""
    if not high > low:
        high, low = high + max(abs(high), 1e-3) * 0.05, low - max(abs(low), 1e-3) * 0.05
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first, final = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, final + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose both, thinned to about five."""
    first, final = math.floor(math.log10(low)), math.ceil(math.log10(high))
    final = max(final, first + 1)
    step = max(1, math.ceil((final - first) / 5))
    return [10.0**power for power in range(first, final + step, step)]


def _label(value: float) -> str:
    return (
        f"{value:.3g}"
        if value == 0 or 1e-3 <= abs(value) < 1e4
        else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    )
