"""Clips per second of the training's reader, against a plain sequential read of the same tars.

    python benchmarks/loader.py --json                  # built-in figures, generated for the benchmark
    python benchmarks/loader.py --data data/sprites     # an existing dataset
    python benchmarks/loader.py --quickstart-steps 150  # also: waiting for data in the quickstart's training

There are two plain reads. `clips` streams each tar with Python's tarfile and reads the bytes of every clip. `bytes`
reads the files in blocks of 1 MB without looking for clips. The reader fetches clips in the training's order, verifies
the CRC of each, and stacks them into batches of tensors in its own thread, while a consumer takes them at full speed.
All read from the page cache, first warm, then cold (the system is asked to drop the files).
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from arguments import ROOT, machine, parser, show

from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable
from pipeline.training.prefetch import PrefetchedBatches, ShardReadAhead
from preprocessing.dataset.reader import ClipDataset
from vdsm.memory import keep_freed_memory

BLOCK = 1 << 20


def write_dataset(folder: Path, identities: int) -> None:
    """Write a dataset of the built-in figures."""
    args = ["--source.figures.identities", str(identities), "--shards.concurrency", "2", "--out", str(folder)]
    subprocess.run([sys.executable, str(ROOT / "preprocessing" / "shard.py"), *args], check=True, capture_output=True)


def bare_clips(tars: list[Path]) -> float:
    """Return the seconds to read all members of the tars, in order."""
    began = time.perf_counter()
    for path in tars:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    file.read()
    return time.perf_counter() - began


def bare_bytes(tars: list[Path]) -> float:
    """Return the seconds to read all bytes of the tars, in order."""
    began = time.perf_counter()
    for path in tars:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return time.perf_counter() - began


def read_epoch(clips: ClipDataset, batch: int) -> tuple[float, int]:
    """Return seconds and clips of one epoch through the training's reader."""
    frames, shards = np.array(clips.clip_frames), np.array(clips.clip_shards)
    table = ClipTable(clips.keys, clips.identities, frames, shards)
    order = GlobalOrder(table, seed=0, stage=1, window=min(clips.clip_frames), batch=batch, validation_fraction=0.001)
    steps = len(order.train) // batch
    began = time.perf_counter()
    ahead = ShardReadAhead(clips, order.at, range(steps), 32)
    with ahead, PrefetchedBatches(clips, (order.at(step) for step in range(steps)), order.window) as batches:
        count = 0
        for step, (_, frames) in enumerate(batches):
            ahead.reached(step)
            count += len(frames)
    return time.perf_counter() - began, count


def drop_from_page_cache(tars: list[Path]) -> None:
    """Ask the system to drop the files from its page cache."""
    for path in tars:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(data: Path, batch: int, repeats: int, *, cold: bool) -> dict[str, float]:
    """Return the median clips/s of all three, measured alternately, and the ratios of the reader to the plain reads."""
    clips = ClipDataset(str(data), "train")
    tars = [data / shard["path"] for shard in clips.manifest["shards"] if shard["split"] == "train"]
    rates: dict[str, list[float]] = {"reader": [], "clips": [], "bytes": []}
    bare_bytes(tars)
    for _ in range(repeats):
        for name in rates:
            if cold:
                drop_from_page_cache(tars)
            if name == "reader":
                seconds, count = read_epoch(ClipDataset(str(data), "train"), batch)  # its own memory maps
            else:
                seconds, count = (bare_clips if name == "clips" else bare_bytes)(tars), len(clips)
            rates[name].append(count / seconds)
    kind = "cold" if cold else "warm"
    results = {f"reader_clips_per_s_{kind}": round(median(rates["reader"]), 1)}
    for name in ("clips", "bytes"):
        results[f"bare_{name}_clips_per_s_{kind}"] = round(median(rates[name]), 1)
        ratios = sorted(one / other for one, other in zip(rates["reader"], rates[name], strict=True))
        results |= {
            f"ratio_to_bare_{name}_{kind}": round(median(ratios), 3),
            f"ratio_to_bare_{name}_{kind}_lowest": round(ratios[0], 3),
            f"ratio_to_bare_{name}_{kind}_highest": round(ratios[-1], 3),
        }
    return results


def measure_waiting(steps: int, scratch: Path) -> dict[str, Any]:
    """Return the share of time spent waiting for data in the first steps of the quickstart's training, by stage."""
    recipe = ["--config", str(ROOT / "configs" / "quickstart.yaml")]
    data, runs = scratch / "quickstart", scratch / "runs"
    shard = [sys.executable, str(ROOT / "preprocessing" / "shard.py"), *recipe, "--out", str(data)]
    subprocess.run(shard, check=True, capture_output=True)
    args = [f"--training.stage{stage}.steps={steps}" for stage in (1, 2)]
    train = [sys.executable, str(ROOT / "pipeline" / "train.py"), *recipe, *args, "--data", str(data)]
    subprocess.run([*train, "--out", str(runs), "--name", "run"], check=True, capture_output=True)
    lines = [json.loads(line) for line in (runs / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = {
        stage: [line["data_wait_share"] for line in lines if line["kind"] == "train" and line["stage"] == stage]
        for stage in (1, 2)
    }
    return {f"quickstart_data_wait_share_stage{n}": round(sum(values) / len(values), 5) for n, values in shares.items()}


def main() -> None:
    """Measure and print."""
    command = parser(__doc__)
    command.add_argument("--data", type=Path, help="folder of a dataset; default: generate one")
    command.add_argument("--identities", type=int, default=200, help="number of figures in the generated dataset")
    command.add_argument("--batch-clips", type=int, default=24, help="clips per batch")
    command.add_argument("--repeats", type=int, default=5, help="measurements, of which the median counts")
    command.add_argument("--quickstart-steps", type=int, default=0, help="steps of each stage; 0 skips this part")
    options = command.parse_args()
    keep_freed_memory()  # as in every worker of a training
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "figures"
        if options.data is None:
            write_dataset(data, options.identities)
        results: dict[str, Any] = {
            "clips": len(ClipDataset(str(data), "train")),
            "megabytes": round(sum(path.stat().st_size for path in data.glob("train/*.tar")) / 1e6, 1),
            "batch_clips": options.batch_clips,
            "repeats": options.repeats,
        }
        for cold in (False, True):
            results |= compare(data, options.batch_clips, options.repeats, cold=cold)
        if options.quickstart_steps:
            results |= {"quickstart_steps": options.quickstart_steps}
            results |= measure_waiting(options.quickstart_steps, Path(folder))
    show(results | {"machine": machine()}, as_json=options.json)


if __name__ == "__main__":
    main()
