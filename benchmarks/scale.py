"""How the cost of each component grows with clips, ranks, shards, steps and trials, on synthetic tables without pixels.

    python benchmarks/scale.py --json                       # 10^4 to 10^6 clips: four processor minutes, 2 GB
    python benchmarks/scale.py --only ranks --clips 100000  # one of the things that grow
    python benchmarks/scale.py --only node --clips 100000000  # a node of 8 ranks on format 3: four processor minutes
    python benchmarks/scale.py --measured FILE --plot PLOT.svg  # draw what an earlier --json has printed

For each component it prints the cost at three sizes and the exponent of the power law through them: 0 is constant, 1
linear. Seconds are those of the processor. `start` and `node` run in processes of their own for each size, whose memory
they measure; everything else that a rank does is simulated in this process, without a process group or a network.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arguments import machine, parser, show
from scale_columns import held_out_of, job_of, node_of
from scale_plot import draw
from scale_sharding import cached, inputs, shards_of_job, trials
from scale_training import Costs, checkpoint_of, clips_of_dataset, ranks_of_run, start_of_rank, steps_of_run

Grown = dict[str, dict[int, float]]
"""Component -> size -> cost."""

GROWS = {
    "start": "clips", "node": "clips", "held out": "clips", "clips": "clips", "job": "shards", "shards": "shards",
    "cache": "shards", "ranks": "ranks", "steps": "steps", "checkpoint": "MB of a checkpoint", "inputs": "inputs",
    "trials": "trials",
}  # fmt: skip
"""Measurement -> what grows."""


def exponent(costs: Mapping[int, float]) -> float | None:
    """Return the exponent p of the power law cost = a size^p through the points; None without two positive costs."""
    points = [(math.log(size), math.log(cost)) for size, cost in costs.items() if cost > 0]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 1 else None


def grow(measure: Callable[[int], Costs], sizes: Sequence[int]) -> Grown:
    """Measure at each size."""
    grown: Grown = {}
    for size in sizes:
        print(f"{getattr(measure, '__name__', measure)} {size:,}", file=sys.stderr)
        for name, cost in measure(size).items():
            grown.setdefault(name, {})[size] = cost
    return grown


def start(clips: int) -> Costs:
    """Measure the start of a rank in another process."""
    command = [sys.executable, __file__, "--start", str(clips)]
    costs: Costs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return costs


def measurements(clips: int, shards: int, steps: int) -> dict[str, Callable[[], Grown]]:
    """Return what is measured, by the name of what grows; the arguments are the largest sizes."""

    def up_to(largest: int, factor: int = 10) -> list[int]:
        return [largest // factor**2, largest // factor, largest]

    def ranks(size: int) -> Costs:
        return ranks_of_run(size, clips)

    return {
        "start": lambda: grow(start, up_to(clips)),
        "node": lambda: grow(node_of, up_to(clips)),
        "held out": lambda: grow(held_out_of, up_to(clips)),
        "job": lambda: grow(job_of, up_to(shards, 3)),
        "clips": lambda: grow(clips_of_dataset, up_to(clips)),
        "ranks": lambda: grow(ranks, (8, 64, 1024)),
        "steps": lambda: grow(steps_of_run, up_to(steps)),
        "checkpoint": lambda: grow(checkpoint_of, (30, 100, 300)),
        "inputs": lambda: grow(inputs, up_to(clips)),
        "shards": lambda: grow(shards_of_job, up_to(shards, 3)),
        "cache": lambda: grow(cached, up_to(shards, 3)),
        "trials": lambda: grow(trials, (100, 1000, 10_000)),
    }


def table(grown: Grown) -> str:
    """Format the costs as a Markdown table."""
    lines = ["| cost | smallest | | largest | exponent |", "|---|---|---|---|---|"]
    for name, costs in grown.items():
        cells = [f"{size:,}: {cost:.3g}" for size, cost in costs.items()]
        found = exponent(costs)
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if found is None else f'{found:.2f}'} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--start"]:
        print(json.dumps(start_of_rank(int(sys.argv[2]))))
        return
    command = parser(__doc__)
    command.add_argument("--clips", type=int, default=1_000_000, help="clips of the largest dataset")
    command.add_argument("--shards", type=int, default=9_000, help="shards of the largest sharding job and cache")
    command.add_argument("--steps", type=int, default=100_000, help="steps of the longest run")
    command.add_argument("--only", nargs="+", choices=list(measurements(1, 1, 1)), help="measure only these")
    command.add_argument("--plot", type=Path, help="file for an SVG")
    command.add_argument("--measured", type=Path, help="output of an earlier --json, to show instead of measuring")
    options = command.parse_args()
    results = json.loads(options.measured.read_text())["components"] if options.measured else measure(options)
    costs = {name: {int(size): cost for size, cost in one["costs"].items()} for name, one in results.items()}
    if options.plot is not None:
        options.plot.write_text(draw((name, one["grows"], costs[name]) for name, one in results.items()))
    if options.json:
        show({"components": results, "machine": machine()}, as_json=True)
    else:
        print(table(costs))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the costs of the chosen measurements, by component."""
    chosen, results = measurements(options.clips, options.shards, options.steps), {}
    for name in options.only or chosen:
        for component, costs in chosen[name]().items():
            results[component] = {"grows": GROWS[name], "costs": costs, "exponent": exponent(costs)}
    return results


if __name__ == "__main__":
    main()
