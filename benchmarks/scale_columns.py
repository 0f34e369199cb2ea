"""What the ranks of a node spend on a dataset of format 3, whose table and indexes are real, and whose tars are empty.

A hundred million clips are 308,642 shards: as many links to `DISTINCT` indexes, so that they fit on any disk. Processes
of their own open the dataset, because memory is measured.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scale_data import CLIPS_PER_SHARD, SHARD_BYTES, NoInputs, shard_index
from scale_rank import HELD, RANKS_PER_NODE, cpu_seconds

from cluster.cli.progress import ProgressDisplay
from pipeline.training.held_out import HeldOut, find_held_out
from preprocessing.dataset import arrow_file
from preprocessing.dataset.clip_index import encode_clips
from preprocessing.dataset.format import Manifest, ShardEntry, columns_path, index_path, shard_path
from preprocessing.dataset.index import MAX_CHECKED, summarize
from preprocessing.dataset.manifest import write_manifest
from preprocessing.dataset.reader import ClipDataset
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.job import _Job
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.plan import make_plan

DISTINCT = 300
"""Indexes that differ. Their bits of clips that are held out are repeated like them."""

Costs = dict[str, float]


def write_columns(folder: Path, clips: int) -> None:
    """Write table and indexes of about so many clips, and which of them are held out."""
    (folder / "train").mkdir(parents=True)
    tar = folder / "empty"
    with tar.open("wb") as file:
        file.truncate(SHARD_BYTES)
    shards, files = -(-clips // CLIPS_PER_SHARD), []
    for number in range(min(shards, DISTINCT)):
        samples = shard_index(number, CLIPS_PER_SHARD)["samples"]
        data = encode_clips(samples, NoInputs.vocabulary, NoInputs.factors)
        files.append((folder / f"index-{number}", len(data), hashlib.sha256(data).hexdigest()))
        files[-1][0].write_bytes(data)
    entries: list[ShardEntry] = []
    for number in range(shards):
        path, (file, size, digest) = shard_path("train", number), files[number % len(files)]
        (folder / columns_path(path)).symlink_to(file)
        if number < MAX_CHECKED:  # of more, the reader compares the lengths when it opens them
            (folder / path).symlink_to(tar)
        entries.append(
            {
                "path": path, "split": "train", "clips": CLIPS_PER_SHARD, "size_bytes": SHARD_BYTES,
                "sha256": f"{number:064x}", "index": index_path(path), "index_sha256": "0" * 64,
                "columns_sha256": digest, "columns_bytes": size,
            }
        )  # fmt: skip
    manifest: Manifest = {
        "schema_version": 3, "vocabulary": NoInputs.vocabulary, "factors": {}, "clip_shape": [8, 64, 64, 3],
        "splits": {"train": {}}, "shards": entries,
    }  # fmt: skip
    write_manifest(str(folder), manifest)
    _write_held_out(folder, shards)


def _write_held_out(folder: Path, shards: int) -> None:
    """Write what `find_held_out` finds for the shards that differ, repeated."""
    mapped = ClipDataset(str(folder), "train", most_clips=DISTINCT * CLIPS_PER_SHARD).mapped
    assert mapped is not None
    found = HeldOut.read(find_held_out(mapped, 0, 0.1, "identity"), np.diff(mapped.starts)).columns
    rows = np.resize(np.arange(found.rows), shards)
    columns: dict[str, arrow_file.Column] = {n: found.array(n)[rows] for n, k in found.kinds.items() if k != "bytes"}
    bits = [found.ragged("held").row(row).tobytes() for row in range(found.rows)]
    columns["held"] = arrow_file.ragged([bits[row] for row in rows.tolist()])
    (folder / HELD).write_bytes(arrow_file.encode(columns, found.kinds))


def node_of(clips: int) -> Costs:
    """Return the largest costs of the ranks of a node, and how much of it the mapped files take in all of them."""
    with tempfile.TemporaryDirectory() as folder:
        write_columns(Path(folder) / "data", clips)
        return ranks_on(Path(folder) / "data")


def ranks_on(data: Path) -> Costs:
    """Return what `node_of` does, of a dataset that is there."""
    program = str(Path(__file__).with_name("scale_rank.py"))
    ranks = [
        subprocess.Popen(
            [sys.executable, program, str(data), str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(RANKS_PER_NODE)
    ]
    for process in ranks:
        assert process.stdout is not None
        process.stdout.readline()  # all have the files mapped, before private memory counts
    costs = []
    for process in ranks:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        costs.append(json.loads(process.stdout.readline()))
    shared = [data / name for name in ("shards.arrow", HELD)]
    held = {path.name: sum(_proportional_mb(process.pid, path) for process in ranks) for path in shared}
    for process in ranks:
        process.communicate()
    found = {f"rank: {name}": max(cost[name] for cost in costs) for name in costs[0]}
    for path in shared:
        found[f"node: {path.name} MB"] = path.stat().st_size / 1e6
        found[f"node: {path.name}, memory of 8 ranks MB"] = held[path.name]
    return found


def _proportional_mb(pid: int, path: Path) -> float:
    """Return the share of a process in the pages of a mapped file, in MB."""
    total, is_here = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if not line.split(maxsplit=1)[0].endswith(":"):
            is_here = line.endswith(str(path))
        elif is_here and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total * 1024 / 1e6


def held_out_of(clips: int) -> Costs:
    """Return what it takes to find the clips that are held out, which the driver of a run does once."""
    with tempfile.TemporaryDirectory() as folder:
        write_columns(Path(folder) / "data", clips)
        mapped = ClipDataset(str(Path(folder) / "data"), "train").mapped
        assert mapped is not None
        return {"driver: held out cpu_s": cpu_seconds(lambda: find_held_out(mapped, 0, 0.1, "identity"))}


def job_of(shards: int) -> Costs:
    """Return the cost of a sharding job of format 3 beside the shards themselves: to plan them and to commit them."""
    recipe, source = DataRecipe(), NoInputs(20 * shards)
    recipe = recipe.model_copy(update={"shards": recipe.shards.model_copy(update={"target_mb": 2.0, "format": 3})})
    plans: list[Any] = []
    planning = cpu_seconds(lambda: plans.append(make_plan(recipe, source)))
    planning += cpu_seconds(lambda: plans[0].identity)
    plan, summaries = plans[0], []
    for number, shard in enumerate(plan.shards):
        index: Any = shard_index(number, 1) | {"shard": shard.path, "split": shard.split, "schema_version": 3}
        index["columns"] = {"path": columns_path(shard.path), "sha256": f"{number:064x}", "size_bytes": 40_000}
        summaries.append(summarize(index, f"{number:064x}"))
    with tempfile.TemporaryDirectory() as folder, ProgressDisplay(phases=1) as progress:
        job = _Job(recipe, folder, source, plan, progress)

        def commit() -> None:
            for shard, summary in zip(plan.shards, summaries, strict=True):
                job._add(shard, summary)
                job._check_rejected_share()
            write_manifest(folder, make_manifest(folder, plan, source, summaries, b""))

        began = time.process_time()
        commit()
        committing = time.process_time() - began
    factor = shards / len(plan.shards)
    return {"job: plan cpu_s": planning * factor, "job: commit cpu_s": committing * factor}
