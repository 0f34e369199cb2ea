"""How the cost of a step grows with clips, frames and experts: measured steps, as JSON and as an SVG.

    python benchmarks/cost.py --svg docs/step-cost.svg --json

One process per point (`step.py` without baseline), on the shapes of the paper. B * T varies by B at T = 8 and by T
at B = 20; K varies at B = 20, T = 8. Two straight lines are fitted by least squares: seconds = a + b * B * T, and
seconds = a + b * K, whose slope is to be no more than what an expert costs by itself: mixing it, and Adam.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEP = Path(__file__).with_name("step.py")
BATCHES = ((5, 8), (10, 8), (20, 8), (40, 8), (20, 4), (20, 16))
EXPERTS = (10, 20, 40, 60)
Curves = dict[int, list[tuple[float, float]]]
"""By stage, what varies and seconds."""
COLOURS = {1: "#1f6f8b", 2: "#c8553d"}


def measured(stage: int, clips: int, frames: int, experts: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one point."""
    words = ["--stage", stage, "--clips", clips, "--frames", frames, "--experts", experts, "--steps", options.steps]
    words += ["--threads", options.threads, "--device", options.device, "--dtype", options.dtype]
    command = [sys.executable, str(STEP), *map(str, words), "--baseline-steps", "0", "--json"]
    figures: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return figures


def line(x: list[float], y: list[float]) -> dict[str, float]:
    """Intercept, slope and share of variance explained of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.array(y) - intercept - slope * np.array(x)
    explained = 1 - residual.var() / np.array(y).var()
    return {
        "intercept_s": round(float(intercept), 4),
        "slope_s": round(float(slope), 6),
        "r2": round(float(explained), 4),
    }


def marks(end: float) -> list[float]:
    """Three to seven round numbers up to `end`."""
    ten = 10 ** math.floor(math.log10(end / 3))
    step = max(ten * digit for digit in (1, 2, 5) if ten * digit <= end / 3)
    return [round(step * number, 6) for number in range(1, int(end / step) + 1)]


def panel(left: int, title: str, unit: str, curves: Curves) -> list[str]:
    """One diagram of an SVG: points and their fitted lines by stage, from zero."""
    width, height, top = 300, 200, 40
    far = max(x for points in curves.values() for x, _ in points) * 1.05
    high = max(y for points in curves.values() for _, y in points) * 1.15

    def at(x: float, y: float) -> tuple[float, float]:
        return left + width * x / far, top + height * (1 - y / high)

    parts = [f'<text x="{left}" y="{top - 16}" font-weight="bold">{title}</text>']
    parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#555"/>')
    for mark in marks(far):
        x, y = at(mark, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle">{mark:g}</text>')
    for mark in marks(high):
        x, y = at(0, mark)
        parts.append(f'<text x="{x - 5:.0f}" y="{y + 4:.0f}" text-anchor="end">{mark:g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">{unit}</text>')
    for stage, points in curves.items():
        fit = line([x for x, _ in points], [y for _, y in points])
        x0, y0 = at(0, max(fit["intercept_s"], 0))
        x1, y1 = at(far, fit["intercept_s"] + fit["slope_s"] * far)
        parts.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{COLOURS[stage]}" opacity="0.5"/>')
        for point in points:
            x, y = at(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[stage]}"/>')
        parts.append(f'<text x="{left + 12}" y="{top + 2 + 16 * stage}" fill="{COLOURS[stage]}">stage {stage}</text>')
    return parts


def drawn(by_batch: Curves, by_experts: Curves) -> str:
    """The SVG."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 300" font-family="sans-serif" font-size="12">'
    parts = [head, '<rect width="760" height="300" fill="white"/>']
    parts += panel(50, "seconds per step, K = 40", "frames in the batch, B x T", by_batch)
    parts += panel(430, "seconds per step, B = 20, T = 8", "experts K", by_experts)
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Measures all points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="*", choices=(1, 2), default=[1, 2])
    parser.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each point; their median counts")
    parser.add_argument("--svg", type=Path, help="file for the plot")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    by_batch: Curves = {}
    by_experts: Curves = {}
    points, fits, machine = [], {}, {}
    for stage in options.stages:
        shapes = [(clips, frames, 40) for clips, frames in BATCHES] + [(20, 8, k) for k in EXPERTS if k != 40]
        for clips, frames, experts in shapes:
            figures = measured(stage, clips, frames, experts, options)
            seconds, machine = figures["seconds_per_step"], figures["machine"]
            points.append({"stage": stage, "clips": clips, "frames": frames, "experts": experts, "seconds": seconds})
            if experts == 40:
                by_batch.setdefault(stage, []).append((clips * frames, seconds))
            if (clips, frames) == (20, 8):
                by_experts.setdefault(stage, []).append((experts, seconds))
        for name, curve in (("by_frames_in_batch", by_batch[stage]), ("by_experts", by_experts[stage])):
            fits[f"stage_{stage}_{name}"] = line([x for x, _ in curve], [y for _, y in curve])
    if options.svg is not None:
        options.svg.write_text(drawn(by_batch, by_experts))
    report = {"fits": fits, "points": points, "machine": machine}
    if options.json:
        print(json.dumps(report))
        return
    for name, value in {**fits, **{str(i): point for i, point in enumerate(points)}}.items():
        print(f"{name:30} {value}")


if __name__ == "__main__":
    main()
