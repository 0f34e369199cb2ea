"""Two workers with one thread each against one worker with one thread, at equal work per worker.

    python benchmarks/scaling.py --json
    python benchmarks/scaling.py --config configs/sprites.yaml --clips 2 --steps 8 --repeats 1  # the published model
    python benchmarks/scaling.py --projection     # the all-reduce of the published model on networks, from arithmetic

Trains stage 1 of the quickstart's model, or of another recipe's, by the training's own loop (no Ray: gloo over this
machine's loopback), on clips in memory, so that neither data nor start-up counts. Each kind of run is repeated in
turns; a repeat is one process per worker, whose first steps do not count. Efficiency = clips/s per worker with two,
over clips/s with one. Two trainings `apart`, at the same time but without a word to each other, show what of it the
machine takes: its cores share caches and memory, and perhaps units.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PARAMETERS = 133_000_000
"""Of the published decoder, which is nearly all of the model."""
LINKS_GBPS = (25, 100, 400)
GPUS = (8, 16, 64, 256, 1024)
KINDS = {"one": (1, 1, "none"), "apart": (2, 1, "none"), "two": (2, 2, "none"), "two_bf16": (2, 2, "bf16")}
"""Name to processes, the workers that train together, and how gradients travel."""


class InMemory:
    """Clips of noise, as many as asked for."""

    def __init__(self, count: int, frames: int, size: int) -> None:
        self.keys = [f"clip{number}" for number in range(count)]
        self.identities = [f"one{number // 2}" for number in range(count)]
        self.clip_frames, self.clip_shards = [frames] * count, [0] * count
        self._frames = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Always the same."""
        return self._frames

    def prepare(self, shard: int) -> bool:
        """There is nothing to bring."""
        return True


def rank(number: int, size: int, config: str, compression: str, clips: int, steps: int, store: str, out: str) -> None:
    """One worker: writes its median seconds of a step."""
    import torch
    import torch.distributed as dist

    from cluster.cli import recipe_file, settings
    from pipeline.recipe import Recipe
    from pipeline.training.distributed import DistributedContext
    from pipeline.training.job import Job
    from pipeline.training.loop import train_run
    from pipeline.training.reporter import QuietReporter
    from vdsm.memory import keep_freed_memory

    class Seconds(QuietReporter):
        """Keeps the time of each step."""

        def __init__(self) -> None:
            self.found: list[float] = []

        def log(self, record: dict[str, Any]) -> None:
            if record["kind"] == "train":
                self.found.append(record["seconds_per_step"])

    torch.set_num_threads(1)
    keep_freed_memory()
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=size)
    written = recipe_file.read_recipe(Path(config), Recipe)
    recipe = Recipe.model_validate(settings.merge(settings.defaults(Recipe), written))
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
    seconds = Seconds()
    job = Job(
        model=recipe.model,
        training=training,
        seed=0,
        clips=InMemory(max(64, 4 * clips * size), stage1.clip_frames, recipe.model.frame_size),
    )
    train_run(job, seconds, DistributedContext(number, size))
    # Only rank 0 is told the times; the others' steps take as long.
    Path(out).write_text(json.dumps(median(seconds.found[3:]) if number == 0 else None))
    if size > 1:
        dist.destroy_process_group()


def measured(kind: str, config: Path, clips: int, steps: int) -> float:
    """Median seconds of a step of one repeat."""
    processes, size, compression = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"seconds{n}" for n in range(processes)]
        words = [str(config), compression, str(clips), str(steps), str(Path(folder) / "store")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--rank", str(n % size), str(size), *words, str(out)], env=environment
            )
            for n, out in enumerate(outs)
        ]
        if any(process.wait() for process in started):
            raise SystemExit("a worker failed")
        found = [float(value) for out in outs if (value := json.loads(out.read_text())) is not None]
        return sum(found) / len(found)


def projection() -> list[dict[str, float]]:
    """Milliseconds of a ring all-reduce of the published model's gradients: 2 (n - 1) / n times their bytes over each
    link. Latency, which grows with n, and overlap with the backward pass are left out."""
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
    """As Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(f"{row[name]:g}" for name in names) + " |" for row in rows])


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == ["--rank"]:
        number, size, config, compression, clips, steps, store, out = sys.argv[2:]
        rank(int(number), int(size), config, compression, int(clips), int(steps), store, out)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml", help="recipe")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="beside one worker")
    parser.add_argument("--clips", type=int, default=12, help="clips of a step of each worker")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--projection", action="store_true", help="print the table of projected all-reduces only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.projection:
        print(table(projection()))
        return
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS if kind in ("one", *options.kinds)}
    for _ in range(options.repeats):
        for kind in seconds:
            seconds[kind].append(measured(kind, options.config, options.clips, options.steps))
    figures: dict[str, Any] = {"recipe": options.config.stem, "clips_per_worker": options.clips}
    figures |= {"steps": options.steps, "repeats": options.repeats}
    for kind, times in seconds.items():
        figures[f"seconds_per_step_{kind}"] = round(median(times), 4)
        figures[f"seconds_per_step_{kind}_all"] = [round(value, 4) for value in times]
    for kind in list(seconds)[1:]:
        figures[f"efficiency_{kind}"] = round(median(seconds["one"]) / median(seconds[kind]), 3)
    figures["projected_all_reduce"] = projection()
    figures["machine"] = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    print(json.dumps(figures) if options.json else "\n".join(f"{name:32} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
