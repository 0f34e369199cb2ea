"""One rank of a small group: `python ddp_rank.py RANK SIZE STORE DATA RECIPE OUT`. Run by test_ddp.py.

Writes the gradients of one backward of each stage, what a training of a few steps reports and which clips it saw, and,
in the pair, the weights of trainings with every option that concerns several ranks: undisturbed and resumed.
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml

from pipeline.recipe import Recipe
from pipeline.training.batches import read
from pipeline.training.job import Job, QuietReporter, TrainPosition
from pipeline.training.loop import train_run
from pipeline.training.stage import StageRun
from pipeline.training.world import DistributedContext
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
    },
}


class Recorder(QuietReporter):
    def __init__(self, world: DistributedContext, stop_after: int | None = None) -> None:
        self.world, self.stop_after, self.asked = world, stop_after, 0
        self.records: list[dict[str, Any]] = []
        self.audit: list[dict[str, Any]] = []
        self.state: dict[str, Any] | None = None

    def log(self, record: dict[str, Any]) -> None:
        if record["kind"] != "pictures":
            self.records.append(record)

    def save(self, state: dict[str, Any] | None, place: TrainPosition, *, last: bool, audit: Any = ()) -> None:
        self.state = copy.deepcopy(state)
        self.audit += audit

    def latest(self, before: TrainPosition | None = None) -> Any:
        return self.world.from_first(self.state)

    def at(self, place: TrainPosition) -> Any:
        return self.latest()

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_after


def gradients(job: Job, world: DistributedContext) -> dict[str, Any]:
    """Of both stages at step 2, by stage and name of the parameter."""
    found = {}
    for stage in (1, 2):
        torch.manual_seed(0)
        run = StageRun(job, stage, Disentangler(job.model), Recorder(world), world)  # type: ignore[arg-type]
        windows = run.order.at(2).part(world.rows(4))
        run.gradients(2, read(job.clips, windows, 4), run.weights(2))
        found[stage] = {name: p.grad for name, p in run.module.named_parameters() if p.grad is not None}
    return found


def weights(job: Job, world: DistributedContext, stop_after: int | None) -> Any:
    """Of a training that was stopped and resumed, or not stopped."""
    recorder = Recorder(world, stop_after)
    train_run(job, recorder, world)
    if stop_after is not None:
        state = recorder.latest()
        recorder = Recorder(world)
        train_run(job, recorder, world, state)
    found = recorder.latest()
    return found[found.get("used", "model")]


def main(rank: int, size: int, store: str, data: str, recipe_path: str, out: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    recipe = Recipe.model_validate(yaml.safe_load(Path(recipe_path).read_text()))
    # Dropout is drawn per rank, so without it the number of ranks makes no difference but rounding.
    model = replace(recipe.model, rnn_dropout=0.0)
    training = replace(recipe.training, log_interval=1, validation_interval=4, audit=True, picture_interval=0)
    job = Job(model=model, training=training, seed=3, clips=ClipDataset(data, "train"), notes={})
    world = DistributedContext(rank, size)
    recorder = Recorder(world)
    found = {"gradients": gradients(job, world)}
    train_run(job, recorder, world)
    found |= {"records": recorder.records, "audit": recorder.audit}
    if size == 2:
        job = replace(job, model=recipe.model)
        for name, changes in OPTIONS.items():
            changed = replace(job, training=replace(recipe.training, picture_interval=0, **changes))
            found[name] = {"whole": weights(changed, world, None), "resumed": weights(changed, world, 31)}
    torch.save(found, out)
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
