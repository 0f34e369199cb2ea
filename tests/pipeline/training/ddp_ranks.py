"""Small groups of ranks: `python ddp_ranks.py DATA RECIPE OUT SIZES OPTION...`. Run by test_ddp.py.

Each rank is a fork of one process, which has imported everything. It writes to OUT/<rank>of<size> the gradients of one
backward pass of each stage, what a training of a few steps reports, which clips it saw, and, for the pair, the weights
of trainings with some multi-rank options: uninterrupted and resumed.
"""

import copy
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo  # which each rank's optimiser would import for seconds
import torch.distributed as dist
import yaml
from torch.distributed import distributed_c10d
from torch.distributed.optim import zero_redundancy_optimizer

from pipeline.recipe import Recipe
from pipeline.training.batches import Batch, read_windows
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.position import TrainPosition
from pipeline.training.reporter import QuietReporter, StopDecision
from pipeline.training.stage import StageRun
from pipeline.training.state import TrainState
from preprocessing.dataset.reader import ClipDataset
from vdsm.disentangler import Disentangler

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "static graph": {"static_graph": True},
    "sharded optimiser": {"shard_optimiser": True},
    "compressed gradients": {"gradient_compression": "bf16"},
    "all": {
        "static_graph": True,
        "shard_optimiser": True,
        "gradient_compression": "bf16",
        "precision": "bf16",
        "ema_decay": 0.9,
        "accumulation": 2,
        "latent_memory_gb": 0.1,
    },
}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a collective sends or receives a pickled object")


class Recorder(QuietReporter):
    folder: Path

    def __init__(self, world: DistributedContext, stop_after: int | None = None) -> None:
        self.world, self.stop_after, self.steps = world, stop_after, 0
        self.records: list[dict[str, Any]] = []
        self.audit: list[dict[str, Any]] = []
        self.state: TrainState | None = None

    def log(self, record: dict[str, Any]) -> None:
        if record["kind"] not in ("images", "event"):
            self.records.append(record)

    def save(self, state: TrainState, *, last: bool, audit: Any = ()) -> None:
        self.state = copy.deepcopy(state)
        self.audit += audit

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        if self.world.size == 1:
            return self.state
        path = self.folder / "state"
        if self.world.is_first:
            torch.save(self.state, path)
        dist.barrier()
        state: TrainState | None = torch.load(path, weights_only=False)
        dist.barrier()
        return state

    def should_stop(self) -> StopDecision:
        self.steps += 1
        return StopDecision(self.steps == self.stop_after)


def shortened(training: TrainingConfig, *steps: int) -> TrainingConfig:
    """Return settings with so many steps of each stage, and without pictures."""
    stage1, stage2 = (replace(training.stage(number), steps=count) for number, count in zip((1, 2), steps, strict=True))
    return replace(training, stage1=stage1, stage2=stage2, picture_interval=0)


def with_options(training: TrainingConfig, accumulation: int = 1, **changes: Any) -> TrainingConfig:
    """Return settings with some changed, `accumulation` in both stages."""
    stages = {name: replace(getattr(training, name), accumulation=accumulation) for name in ("stage1", "stage2")}
    return replace(training, **stages, **changes)


def gradients(job: Job, world: DistributedContext) -> dict[str, Any]:
    """Return the gradients of both stages at step 2, by stage and name of the parameter; 3 is 2 with stored latents."""
    found = {}
    for number in (1, 2, 3):
        torch.manual_seed(0)
        stage: Literal[1, 2] = 1 if number == 1 else 2
        job = replace(job, training=replace(job.training, latent_memory_gb=0.1 if number == 3 else 0.0))
        run = StageRun(job, stage, Disentangler(job.model), Recorder(world), world)  # type: ignore[arg-type]
        windows = run.order.at(2).part(world.rows(4))
        run.stepper.gradients(2, Batch(windows, read_windows(job.clips, windows, run.config.window_frames)))
        found[number] = {name: p.grad for name, p in run.module.named_parameters() if p.grad is not None}
    return found


def weights(job: Job, world: DistributedContext, stop_after: int | None) -> Any:
    """Return the weights of a training that was stopped and resumed, or of one that was not stopped."""
    recorder = Recorder(world, stop_after)
    train_run(job, recorder, world)
    if stop_after is not None:
        state = recorder.restore()
        recorder = Recorder(world)
        train_run(job, recorder, world, state)
    found = recorder.restore()
    assert found is not None
    return dict(found.ema if found.uses_ema and found.ema is not None else found.weights)


def run_rank(rank: int, size: int, data: str, recipe_path: str, folder: Path, options: Sequence[str]) -> None:
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
    Recorder.folder = folder
    distributed_c10d._object_to_tensor = distributed_c10d._tensor_to_object = refuse
    zero_redundancy_optimizer._broadcast_object = refuse
    recipe = Recipe.model_validate(yaml.safe_load(Path(recipe_path).read_text()))
    # Dropout is drawn per rank; without it, the number of ranks only affects rounding.
    model = replace(recipe.model, rnn_dropout=0.0)
    training = shortened(recipe.training, 13, 3)  # more than an epoch of stage 1
    # Lengths drawn in each step, the same on all ranks.
    training = replace(training, stage2=replace(training.stage2, rollout_frames=7))
    training = replace(training, log_interval=1, validation_interval=7, audit=True)
    job = Job(model=model, training=training, seed=3, clips=ClipDataset(data, "train"))
    world = DistributedContext(rank, size)
    recorder = Recorder(world)
    found = {"gradients": gradients(job, world)}
    train_run(job, recorder, world)
    found |= {"records": recorder.records, "audit": recorder.audit}
    if size == 2:
        job = replace(job, model=recipe.model)
        for name in options:
            changed = replace(job, training=with_options(shortened(recipe.training, 4, 4), **OPTIONS[name]))
            found[name] = {"uninterrupted": weights(changed, world, None), "resumed": weights(changed, world, 6)}
    torch.save(found, folder / f"{rank}of{size}")
    if size > 1:
        dist.destroy_process_group()


def main(data: str, recipe_path: str, out: str, sizes: str, *options: str) -> int:
    """Run all ranks, and return the number of those that failed."""
    torch.set_num_threads(1)  # before the first operation: no thread may exist when the process forks
    children = []
    for size in map(int, sizes):
        for rank in range(size):
            child = os.fork()
            if child == 0:
                try:
                    run_rank(rank, size, data, recipe_path, Path(out), options)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
