"""Weak scaling of training: two workers with one thread each, against one worker with one thread.

    python benchmarks/scaling.py --json
    python benchmarks/scaling.py --config configs/sprites.yaml --clips 2 --steps 8 --repeats 1  # the published model
    python benchmarks/scaling.py --projection     # computed all-reduce times of the published model on networks

Trains stage 1 of the quickstart's model, or of another recipe's, with the training's own loop (no Ray; gloo over the
loopback interface), on clips in memory, so that neither data loading nor start-up counts. The kinds of run alternate; a
repeat is one process per worker, whose first steps are excluded. Efficiency = clips/s per worker with two workers, over
clips/s with one. `apart` runs two independent trainings at the same time, to show the share of the loss that is due to
the machine: its cores share caches, memory and perhaps execution units.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from arguments import ROOT, machine, parser, show
from numpy.typing import NDArray

PARAMETERS = 133_000_000
"""Parameters of the published decoder, nearly all of the model."""
LINKS_GBPS = (25, 100, 400)
GPUS = (8, 16, 64, 256, 1024)
KINDS = {"one": (1, 1, "none"), "apart": (2, 1, "none"), "two": (2, 2, "none"), "two_bf16": (2, 2, "bf16")}
"""By name: processes, workers that train together, and compression of the gradients."""


class InMemory:
    """A dataset of `count` clips of noise."""

    def __init__(self, count: int, frames: int, size: int) -> None:
        self.keys = [f"clip{number}" for number in range(count)]
        self.identities = [f"one{number // 2}" for number in range(count)]
        self.clip_frames, self.clip_shards = [frames] * count, [0] * count
        self._frames = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the same frames for every clip."""
        return self._frames

    def prepare(self, shard: int) -> bool:
        """Do nothing: all shards are in memory."""
        return True


def rank(number: int, size: int, config: str, compression: str, clips: int, steps: int, store: str, out: str) -> None:
    """Run one worker and write its median seconds per step to `out`."""
    import torch
    import torch.distributed as dist

    from cluster.cli import recipe_file, settings
    from pipeline.recipe import Recipe
    from pipeline.training.distributed import DistributedContext
    from pipeline.training.job import Job
    from pipeline.training.loop import train_run
    from pipeline.training.reporter import QuietReporter
    from vdsm.memory import keep_freed_memory

    class StepTimes(QuietReporter):
        """Collect the time of each step."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def log(self, record: dict[str, Any]) -> None:
            if record["kind"] == "train":
                self.seconds.append(record["seconds_per_step"])

    torch.set_num_threads(1)
    keep_freed_memory()
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=size)
    tree = recipe_file.read_recipe(Path(config), Recipe)
    recipe = Recipe.model_validate(settings.merge(settings.defaults(Recipe), tree))
    stage1 = replace(recipe.training.stage1, steps=steps, batch_clips=clips * size, warmup_steps=0)
    training = replace(
        recipe.training,
        stages="1",
        stage1=stage1,
        stage2=replace(recipe.training.stage2, batch_clips=clips * size),
        num_workers=size,
        gradient_compression=compression,
        log_interval=1,
        validation_interval=steps,
        picture_interval=0,
    )
    times = StepTimes()
    job = Job(
        model=recipe.model,
        training=training,
        seed=0,
        clips=InMemory(max(64, 4 * clips * size), stage1.clip_frames, recipe.model.frame_size),
    )
    train_run(job, times, DistributedContext(number, size))
    # Only rank 0 reports times; the steps of the others take as long.
    Path(out).write_text(json.dumps(median(times.seconds[3:]) if number == 0 else None))
    if size > 1:
        dist.destroy_process_group()


def measure(kind: str, config: Path, clips: int, steps: int) -> float:
    """Return the median seconds per step of one repeat."""
    processes, size, compression = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"seconds{n}" for n in range(processes)]
        args = [str(config), compression, str(clips), str(steps), str(Path(folder) / "store")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--rank", str(n % size), str(size), *args, str(out)], env=environment
            )
            for n, out in enumerate(outs)
        ]
        if any(process.wait() for process in started):
            raise SystemExit("a worker failed; see its traceback above")
        seconds = [float(value) for out in outs if (value := json.loads(out.read_text())) is not None]
        return sum(seconds) / len(seconds)


def projection() -> list[dict[str, float]]:
    """Compute the milliseconds of a ring all-reduce of the published model's gradients on n GPUs.

    Each link carries 2 (n - 1) / n times their bytes. Latency, which grows with n, and overlap with the backward pass
    are neglected.
    """
    rows = []
    for gpus in GPUS:
        row: dict[str, float] = {"gpus": gpus}
        for name, size in (("fp32", 4), ("bf16", 2)):
            for link in LINKS_GBPS:
                seconds = 2 * (gpus - 1) / gpus * PARAMETERS * size / (link * 1e9 / 8)
                row[f"{name}_{link}_gbps_ms"] = round(1000 * seconds, 1)
        rows.append(row)
    return rows


def table(rows: list[dict[str, float]]) -> str:
    """Format rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(f"{row[name]:g}" for name in names) + " |" for row in rows])


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--rank"]:
        number, size, config, compression, clips, steps, store, out = sys.argv[2:]
        rank(int(number), int(size), config, compression, int(clips), int(steps), store, out)
        return
    command = parser(__doc__)
    command.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml", help="recipe")
    command.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="kinds of run to compare with one worker"
    )
    command.add_argument("--clips", type=int, default=12, help="clips per step and worker")
    command.add_argument("--steps", type=int, default=30, help="steps of each run")
    command.add_argument("--repeats", type=int, default=3, help="runs of each kind, of which the median counts")
    command.add_argument("--projection", action="store_true", help="only print the table of computed all-reduce times")
    options = command.parse_args()
    if options.projection:
        print(table(projection()))
        return
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS if kind in ("one", *options.kinds)}
    for _ in range(options.repeats):
        for kind in seconds:
            seconds[kind].append(measure(kind, options.config, options.clips, options.steps))
    results: dict[str, Any] = {"recipe": options.config.stem, "clips_per_worker": options.clips}
    results |= {"steps": options.steps, "repeats": options.repeats}
    for kind, times in seconds.items():
        results[f"seconds_per_step_{kind}"] = round(median(times), 4)
        results[f"seconds_per_step_{kind}_all"] = [round(value, 4) for value in times]
    for kind in list(seconds)[1:]:
        results[f"efficiency_{kind}"] = round(median(seconds["one"]) / median(seconds[kind]), 3)
    results["projected_all_reduce"] = projection()
    show(results | {"machine": machine()}, as_json=options.json)


if __name__ == "__main__":
    main()
