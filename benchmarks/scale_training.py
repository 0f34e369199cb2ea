"""What a rank of a training and its driver spend on data, noise, validation, logs and checkpoints; no step is taken.

Each function takes the size of one thing that can grow and returns what that costs, by name with the unit.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scale_data import SHARD_BYTES, NoPixels, write_indexes

from cluster.storage import s3
from cluster.storage.errors import MissingFileError
from pipeline.runs.checkpoints import copy_to_cpu
from pipeline.runs.log import RunLog
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws import draw
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable
from pipeline.training.stage_config import StageConfig
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.frames import draw_frames

Costs = dict[str, float]

CLIPS_PER_RANK = 20
RANKS_PER_NODE = 8
STEPS = 20


def cpu_seconds(action: Callable[[], Any], repeats: int = 1) -> float:
    """Return the mean processor time of `action`, in seconds."""
    began = time.process_time()
    for _ in range(repeats):
        action()
    return (time.process_time() - began) / repeats


def order_of(clips: Any, batch: int) -> GlobalOrder:
    """Return the order of stage 1 over a table of clips."""
    frames, shards = (np.asarray(column, dtype=np.int64) for column in (clips.clip_frames, clips.clip_shards))
    table = ClipTable(clips.keys, clips.identities, frames, shards)
    most = TrainingConfig().validation_clips
    return GlobalOrder(
        table, seed=0, stage=1, window=8, batch=batch, validation_fraction=0.1, validation_clips=most, lanes=True
    )


def start_of_rank(clips: int) -> Costs:
    """Return the cost of a rank's start on a local dataset. To be called in a process of its own, for the memory."""
    with tempfile.TemporaryDirectory() as folder:
        url = Path(folder) / "data"
        write_indexes(url, clips)
        before = _resident_mb()
        opened: list[Any] = []
        reading = cpu_seconds(lambda: opened.append(ClipDataset(str(url), "train")))
        dataset = _resident_mb()
        ordering = cpu_seconds(lambda: opened.append(order_of(opened[0], CLIPS_PER_RANK * RANKS_PER_NODE)))
        first = cpu_seconds(lambda: opened[1].at(0))
        return {
            "start: index cpu_s": reading,
            "start: index MB": dataset - before,
            "start: order cpu_s": ordering + first,
            "start: order MB": _resident_mb() - dataset,
            "start: peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before,
        }


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def clips_of_dataset(clips: int) -> Costs:
    """Return what grows with the dataset in a step, an epoch and a validation, at the global batch of one node."""
    table = NoPixels(clips)
    order, own = order_of(table, CLIPS_PER_RANK * RANKS_PER_NODE), slice(0, CLIPS_PER_RANK)
    order.at(0, own)
    step = cpu_seconds(lambda: [order.at(number, own) for number in range(STEPS)]) / STEPS
    epoch = cpu_seconds(lambda: order.at(1_000_000_000, own))
    validated = np.concatenate([windows.clips for windows in order.validation_batches()])
    return {
        "step: order ms": 1e3 * step,
        "epoch: first step cpu_s": epoch,
        "validation: clips": len(validated),
        "validation: shards": len(np.unique(table.clip_shards[validated])),
    }


def ranks_of_run(size: int, clips: int) -> Costs:
    """Return what grows with the number of ranks, for one of them or for its node."""
    batch = CLIPS_PER_RANK * size
    table = NoPixels(clips)
    order = order_of(table, batch)
    world = DistributedContext(rank=size // 2, size=size)
    own = world.rows(batch)
    order.at(0, own)
    model = Disentangler(ModelConfig())
    noise = {}
    for stage in (1, 2):
        _noise(model, stage, batch, world)
        noise[stage] = cpu_seconds(lambda stage=stage: _noise(model, stage, batch, world), STEPS)
    # What a rank holds while the records of `training.audit` are gathered: those of 200 steps of all ranks.
    keys = table.keys[:CLIPS_PER_RANK]
    record = len(json.dumps({"stage": 1, "step": 10_000, "rank": size, "clips": keys}))
    return {
        "ranks: order ms per step": 1e3 * cpu_seconds(lambda: [order.at(n, own) for n in range(STEPS)]) / STEPS,
        "ranks: noise of stage 1 ms": 1e3 * noise[1],
        "ranks: noise of stage 2 ms": 1e3 * noise[2],
        "ranks: MB fetched per step and node": _fetched_mb(order, table, size),
        "ranks: audit MB received per rank": size * 200 * record / 1e6,
    }


def _noise(model: Disentangler, stage: int, batch: int, world: DistributedContext) -> None:
    """Draw what `pipeline.training.step` draws in a step of 8 frames."""
    module = model.frame_model if stage == 1 else model.sequence_model
    drawn = draw(TrainingConfig().noise, derive_seed(0, stage, 0, "noise"), batch, world)
    for values in module.draw_noise(drawn.rows, 8, drawn.generator):
        drawn.local(values)
    drawn.local(draw_frames(drawn.rows, 8, 4, drawn.generator))


def _fetched_mb(order: GlobalOrder, table: NoPixels, size: int) -> float:
    """Return the MB per step that a node fetches in an epoch, if it keeps the shards of two blocks."""
    node = slice(0, CLIPS_PER_RANK * min(size, RANKS_PER_NODE))
    steps = len(order.train) // order.batch
    kept: dict[int, None] = {}
    fetched = 0
    for step in range(steps):
        for shard in dict.fromkeys(table.clip_shards[order.at(step, node).clips].tolist()):
            fetched += shard not in kept
            kept.pop(shard, None)
            kept[shard] = None
        while len(kept) > 2 * order.shards_in_use(node):
            kept.pop(next(iter(kept)))
    return fetched * SHARD_BYTES / 1e6 / steps


def steps_of_run(steps: int) -> Costs:
    """Return what a run in S3 uploads as logs in `steps` steps: a record every 10, a checkpoint every 200."""
    training = TrainingConfig(stages="1", stage1=StageConfig(steps=steps))
    bucket = _Counted()
    bucket.install()
    names = (
        "loss", "reconstruction", "kl_static", "kl_pose", "kl_dynamics", "temperature", "learning_rate",
        "gradient_norm", "weight_static", "weight_pose", "weight_dynamics",
    )  # fmt: skip
    values = dict.fromkeys(names, 0.123456789) | {"clips_per_s": 123.456789, "data_wait_share": 0.0, "memory_gb": 1.2}
    with RunLog("s3://bucket/run", training) as log:
        log.take({"kind": "event", "event": "start", "stage": 1, "step": 0, "workers": 1})
        for step in range(10, steps + 1, 10):
            position = {"stage": 1, "step": step}
            log.take({"kind": "train", **position, "steps": steps, "overall_step": step, **values, "epoch": 0})
            if step % 200 == 0:
                log.take({"kind": "checkpoint", **position})
    return {"logs: MB uploaded": bucket.sent / 1e6, "logs: requests": bucket.requests}


class _Counted:
    """A bucket that counts what is written to it, and holds nothing."""

    def __init__(self) -> None:
        self.sent = self.requests = 0

    def install(self) -> None:
        """Replace the functions of `cluster.storage.s3` that a log uses."""

        def upload(path: Path, url: str) -> None:
            self._count(path.stat().st_size)

        def write_bytes(url: str, data: bytes) -> None:
            self._count(len(data))

        def missing(url: str, *_: Any) -> Any:
            raise MissingFileError(url)

        s3.upload, s3.write_bytes, s3.size, s3.read_bytes = upload, write_bytes, missing, missing
        s3.list_files, s3.delete = lambda url: [], lambda url: None

    def _count(self, length: int) -> None:
        self.sent += length
        self.requests += 1


def checkpoint_of(megabytes: int) -> Costs:
    """Return the cost of a checkpoint with `megabytes` of weights and moments: to copy, and to write and verify."""
    state = {
        checkpoint.MODEL_CONFIG: {},
        checkpoint.WEIGHTS: {str(n): torch.randn(250_000) for n in range(megabytes)},
    }
    copied: list[Any] = []
    copying = cpu_seconds(lambda: copied.append(copy_to_cpu(state)))
    with tempfile.TemporaryDirectory() as folder:
        writing = cpu_seconds(lambda: checkpoint.save(copied[0], Path(folder) / "state.pt"))
        reading = cpu_seconds(lambda: checkpoint.load(Path(folder) / "state.pt"))
    return {
        "checkpoint: copy cpu_s": copying, "checkpoint: write cpu_s": writing, "checkpoint: load cpu_s": reading,
    }  # fmt: skip
