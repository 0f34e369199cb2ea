"""Clips per second of the training's reader against a bare sequential read of the same tars, in one run.

    python benchmarks/loader.py --json                  # built-in figures, drawn for the occasion
    python benchmarks/loader.py --data data/sprites     # a dataset that is there
    python benchmarks/loader.py --quickstart-steps 150  # also: waiting for data in the quickstart's training

Two bare reads: `clips`, Python's tarfile in streaming mode from the first member to the last, each clip's bytes read
and nothing done with them; `bytes`, the files in blocks of 1 MB, without looking for clips. The reader takes whole
clips in the training's order, checks each one's CRC, and stacks them to batches of tensors, in its thread, while a
consumer takes them as fast as they come. All read from the page cache, first warm, then cold (the system is asked to
drop the files).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.training.batches import Prefetched, ReadAhead, catalogue  # noqa: E402
from pipeline.training.order import GlobalOrder  # noqa: E402
from preprocessing.dataset.reader import ClipDataset  # noqa: E402
from vdsm.memory import keep_freed_memory  # noqa: E402

BLOCK = 1 << 20


def draw(folder: Path, identities: int) -> None:
    """Writes a dataset of the built-in figures."""
    words = ["--source.figures.identities", str(identities), "--shards.concurrency", "2", "--out", str(folder)]
    subprocess.run([sys.executable, str(ROOT / "preprocessing" / "shard.py"), *words], check=True, capture_output=True)


def bare_clips(tars: list[Path]) -> float:
    """Seconds to read all members of the tars, in order."""
    began = time.perf_counter()
    for path in tars:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    file.read()
    return time.perf_counter() - began


def bare_bytes(tars: list[Path]) -> float:
    """Seconds to read all bytes of the tars, in order."""
    began = time.perf_counter()
    for path in tars:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return time.perf_counter() - began


def full(clips: ClipDataset, batch: int) -> tuple[float, int]:
    """Seconds and clips of one epoch through the training's reader."""
    order = GlobalOrder(
        catalogue(clips), seed=0, stage=1, window=min(clips.clip_frames), batch=batch, validation_fraction=0.001
    )
    steps = len(order.train) // batch
    began = time.perf_counter()
    ahead = ReadAhead(clips, order, range(steps), 32)
    with ahead, Prefetched(clips, (order.at(step) for step in range(steps)), order.window) as batches:
        count = 0
        for step, (_, frames) in enumerate(batches):
            ahead.reached(step)
            count += len(frames)
    return time.perf_counter() - began, count


def drop(tars: list[Path]) -> None:
    """Asks the system to forget the files."""
    for path in tars:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compared(data: Path, batch: int, repeats: int, *, cold: bool) -> dict[str, float]:
    """Median clips/s of all three, taken in turns, and the ratios of the reader to the bare reads."""
    clips = ClipDataset(str(data), "train")
    tars = [data / shard["path"] for shard in clips.manifest["shards"] if shard["split"] == "train"]
    rates: dict[str, list[float]] = {"reader": [], "clips": [], "bytes": []}
    bare_bytes(tars)
    for _ in range(repeats):
        for name in rates:
            if cold:
                drop(tars)
            if name == "reader":
                seconds, count = full(ClipDataset(str(data), "train"), batch)  # maps of its own
            else:
                seconds, count = (bare_clips if name == "clips" else bare_bytes)(tars), len(clips)
            rates[name].append(count / seconds)
    kind = "cold" if cold else "warm"
    figures = {f"reader_clips_per_s_{kind}": round(median(rates["reader"]), 1)}
    for name in ("clips", "bytes"):
        figures[f"bare_{name}_clips_per_s_{kind}"] = round(median(rates[name]), 1)
        ratios = sorted(one / other for one, other in zip(rates["reader"], rates[name], strict=True))
        figures |= {
            f"ratio_to_bare_{name}_{kind}": round(median(ratios), 3),
            f"ratio_to_bare_{name}_{kind}_lowest": round(ratios[0], 3),
            f"ratio_to_bare_{name}_{kind}_highest": round(ratios[-1], 3),
        }
    return figures


def waiting(steps: int, scratch: Path) -> dict[str, Any]:
    """Share of the time spent waiting for data in the first steps of the quickstart's training, per stage."""
    recipe = ["--config", str(ROOT / "configs" / "quickstart.yaml")]
    data, runs = scratch / "quickstart", scratch / "runs"
    shard = [sys.executable, str(ROOT / "preprocessing" / "shard.py"), *recipe, "--out", str(data)]
    subprocess.run(shard, check=True, capture_output=True)
    words = [f"--training.stage{stage}.steps={steps}" for stage in (1, 2)]
    train = [sys.executable, str(ROOT / "pipeline" / "train.py"), *recipe, *words, "--data", str(data)]
    subprocess.run([*train, "--out", str(runs), "--name", "run"], check=True, capture_output=True)
    lines = [json.loads(line) for line in (runs / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = {
        stage: [line["data_wait_share"] for line in lines if line["kind"] == "train" and line["stage"] == stage]
        for stage in (1, 2)
    }
    return {f"quickstart_data_wait_share_stage{n}": round(sum(some) / len(some), 5) for n, some in shares.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a dataset; drawn if absent")
    parser.add_argument("--identities", type=int, default=200, help="figures of the drawn dataset")
    parser.add_argument("--batch-clips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quickstart-steps", type=int, default=0, help="steps of each stage; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    keep_freed_memory()  # as every worker of the training does
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "figures"
        if options.data is None:
            draw(data, options.identities)
        figures: dict[str, Any] = {
            "clips": len(ClipDataset(str(data), "train")),
            "megabytes": round(sum(path.stat().st_size for path in data.glob("train/*.tar")) / 1e6, 1),
            "batch_clips": options.batch_clips,
            "repeats": options.repeats,
        }
        for cold in (False, True):
            figures |= compared(data, options.batch_clips, options.repeats, cold=cold)
        if options.quickstart_steps:
            figures |= {"quickstart_steps": options.quickstart_steps}
            figures |= waiting(options.quickstart_steps, Path(folder))
    figures["machine"] = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{name:40} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
