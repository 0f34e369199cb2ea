"""Cost of a training step as a function of clips, frames and experts, measured, as JSON and as an SVG.

    python benchmarks/cost.py --svg docs/step-cost.svg --json

Runs one process per point (`step.py` without baseline), with the shapes of the paper. B * T varies by B at T = 8 and by
T at B = 20; K varies at B = 20, T = 8. Two lines are fitted by least squares: seconds = a + b * B * T, and
seconds = a + b * K, whose slope should not exceed the cost of an expert itself: blending it, and Adam.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from arguments import add_threads, parser, show

STEP = Path(__file__).with_name("step.py")
BATCHES = ((5, 8), (10, 8), (20, 8), (40, 8), (20, 4), (20, 16))
EXPERTS = (10, 20, 40, 60)
Curves = dict[int, list[tuple[float, float]]]
"""By stage: the varied quantity and seconds."""
COLOURS = {1: "#1f6f8b", 2: "#c8553d"}


def measure(stage: int, clips: int, frames: int, experts: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one point in a process of its own."""
    args = ["--stage", stage, "--clips", clips, "--frames", frames, "--experts", experts, "--steps", options.steps]
    args += ["--threads", options.threads, "--device", options.device, "--dtype", options.dtype]
    command = [sys.executable, str(STEP), *map(str, args), "--baseline-steps", "0", "--json"]
    results: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return results


def fit_line(x: list[float], y: list[float]) -> dict[str, float]:
    """Return intercept, slope and explained share of the variance of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.array(y) - intercept - slope * np.array(x)
    explained = 1 - residual.var() / np.array(y).var()
    return {
        "intercept_s": round(float(intercept), 4),
        "slope_s": round(float(slope), 6),
        "r2": round(float(explained), 4),
    }


def ticks(end: float) -> list[float]:
    """Return three to seven round numbers up to `end`."""
    power = 10 ** math.floor(math.log10(end / 3))
    step = max(power * digit for digit in (1, 2, 5) if power * digit <= end / 3)
    return [round(step * number, 6) for number in range(1, int(end / step) + 1)]


def panel(left: int, title: str, unit: str, curves: Curves) -> list[str]:
    """Draw one chart of the SVG: points and fitted lines by stage, with axes from zero."""
    width, height, top = 300, 200, 40
    x_end = max(x for points in curves.values() for x, _ in points) * 1.05
    y_end = max(y for points in curves.values() for _, y in points) * 1.15

    def at(x: float, y: float) -> tuple[float, float]:
        return left + width * x / x_end, top + height * (1 - y / y_end)

    parts = [f'<text x="{left}" y="{top - 16}" font-weight="bold">{title}</text>']
    parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#555"/>')
    for tick in ticks(x_end):
        x, y = at(tick, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(y_end):
        x, y = at(0, tick)
        parts.append(f'<text x="{x - 5:.0f}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">{unit}</text>')
    for stage, points in curves.items():
        fit = fit_line([x for x, _ in points], [y for _, y in points])
        x0, y0 = at(0, max(fit["intercept_s"], 0))
        x1, y1 = at(x_end, fit["intercept_s"] + fit["slope_s"] * x_end)
        parts.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{COLOURS[stage]}" opacity="0.5"/>')
        for point in points:
            x, y = at(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[stage]}"/>')
        parts.append(f'<text x="{left + 12}" y="{top + 2 + 16 * stage}" fill="{COLOURS[stage]}">stage {stage}</text>')
    return parts


def draw(by_batch: Curves, by_experts: Curves) -> str:
    """Draw the SVG."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 300" font-family="sans-serif" font-size="12">'
    parts = [head, '<rect width="760" height="300" fill="white"/>']
    parts += panel(50, "seconds per step, K = 40", "frames in the batch, B x T", by_batch)
    parts += panel(430, "seconds per step, B = 20, T = 8", "experts K", by_experts)
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Measure all points."""
    command = parser(__doc__)
    command.add_argument("--stages", type=int, nargs="*", choices=(1, 2), default=[1, 2], help="stages to measure")
    command.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32", help="as for step.py")
    command.add_argument("--device", default="cpu", help="as for step.py")
    command.add_argument("--steps", type=int, default=2, help="timed steps per point, of which the median counts")
    command.add_argument("--svg", type=Path, help="file for the plot")
    add_threads(command, 2)
    options = command.parse_args()
    by_batch: Curves = {}
    by_experts: Curves = {}
    points, fits, machine = [], {}, {}
    for stage in options.stages:
        shapes = [(clips, frames, 40) for clips, frames in BATCHES] + [(20, 8, k) for k in EXPERTS if k != 40]
        for clips, frames, experts in shapes:
            results = measure(stage, clips, frames, experts, options)
            seconds, machine = results["seconds_per_step"], results["machine"]
            points.append({"stage": stage, "clips": clips, "frames": frames, "experts": experts, "seconds": seconds})
            if experts == 40:
                by_batch.setdefault(stage, []).append((clips * frames, seconds))
            if (clips, frames) == (20, 8):
                by_experts.setdefault(stage, []).append((experts, seconds))
        for name, curve in (("by_frames_in_batch", by_batch[stage]), ("by_experts", by_experts[stage])):
            fits[f"stage_{stage}_{name}"] = fit_line([x for x, _ in curve], [y for _, y in curve])
    if options.svg is not None:
        options.svg.write_text(draw(by_batch, by_experts))
    if options.json:
        show({"fits": fits, "points": points, "machine": machine}, as_json=True)
    else:
        show({**fits, **{str(number): point for number, point in enumerate(points)}}, as_json=False)


if __name__ == "__main__":
    main()
