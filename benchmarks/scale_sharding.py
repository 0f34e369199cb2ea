"""What the driver of a sharding job, the cache of a machine and a sweep spend on bookkeeping; nothing is decoded."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, cast

from ray.tune.experiment import Trial
from scale_data import NoInputs, shard_index
from scale_training import Costs, cpu_seconds

from cluster.cli.progress import ProgressDisplay
from cluster.storage import api as storage
from preprocessing.dataset.cache import ShardCache
from preprocessing.dataset.format import ShardEntry, encode_json
from preprocessing.dataset.index import summarize
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.job import _Job
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.plan import make_plan


def inputs(count: int) -> Costs:
    """Return the cost of planning `count` inputs, each of one clip."""
    recipe = DataRecipe()
    plan: list[Any] = []
    planning = cpu_seconds(lambda: plan.append(make_plan(recipe, NoInputs(count))))
    return {"plan: cpu_s": planning + cpu_seconds(lambda: plan[0].identity)}


def shards_of_job(count: int) -> Costs:
    """Return the cost of bookkeeping for `count` shards: the share of rejects after each, the manifest, a listing."""
    # An input of 0.1 of a shard gives about the wanted number of shards.
    recipe, source = DataRecipe(shards=ShardsConfig(target_mb=2.0, format=2)), NoInputs(20 * count)
    plan = make_plan(recipe, source)
    found = len(plan.shards)
    small = [shard_index(number, 1) for number in range(found)]
    summaries = [summarize(index, "0" * 64) for index in small]
    with tempfile.TemporaryDirectory() as folder, ProgressDisplay(phases=1) as progress:
        job = _Job(recipe, folder, source, plan, progress)

        def write() -> None:
            for shard, summary in zip(plan.shards, summaries, strict=True):
                job._add(shard, summary)
                job._check_rejected_share()

        checking = cpu_seconds(write)
        for number in range(count):
            path = Path(folder) / "train" / f"{number // 1000}" / f"shard-{number:06d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        listing = cpu_seconds(lambda: storage.list_files(folder))
        content: list[Any] = []
        manifest = cpu_seconds(lambda: content.append(make_manifest(folder, plan, source, summaries, b"")))
    return {
        "shards: rejected share cpu_s": checking * count / found,
        "shards: listing cpu_s": listing,
        "shards: manifest cpu_s": manifest * count / found,
        "shards: manifest MB": len(encode_json(content[0])) / 1e6 * count / found,
    }


def cached(count: int) -> Costs:
    """Return the cost of one more shard for a full cache of `count` shards (of 100 bytes each)."""
    with tempfile.TemporaryDirectory() as folder:
        data, size, more = Path(folder) / "data", 100, 20
        (data / "train").mkdir(parents=True)
        entries = []
        for number in range(more):
            content = f"{number:0{size}d}".encode()
            path = f"train/shard-{number:06d}.tar"
            (data / path).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry = {"path": path, "split": "train", "clips": 1, "size_bytes": size, "sha256": digest}
            entries.append(cast(ShardEntry, entry))
        held = Path(folder) / "cache" / "shards"
        held.mkdir(parents=True)
        for number in range(count):
            (held / f"{number:064x}.tar").write_bytes(b"0" * size)
        cache = ShardCache(Path(folder) / "cache", size * count)
        cache.open(str(data), entries.pop()).close()
        seconds = cpu_seconds(lambda: [cache.open(str(data), entry).close() for entry in entries]) / len(entries)
        others = sum(path.suffix != ".tar" for path in held.iterdir())
    return {"cache: one more shard ms": 1e3 * seconds, "cache: files left per shard": others / more}


def trials(count: int) -> Costs:
    """Return the MB of Ray Tune's snapshot of `count` trials, which is written again and again as they end."""
    space = {f"model.setting{number}": 0.12345 * number for number in range(10)}
    config = {"run": "trial-0123456789ab", "number": 0, "values": space}
    trial = Trial("trainable", config=config, stub=True)
    trial.update_last_result({"disentanglement": 0.5, "action": 0.5, "static": 0.5, "elbo": 0.1, "config": config})
    return {"trials: MB of a snapshot": count * len(json.dumps(trial.get_json_state())) / 1e6}
