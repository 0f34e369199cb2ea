"""One rank of a small group: `python ddp_rank.py RANK SIZE STORE DATA RECIPE OUT`. Run by test_ddp.py.

Writes the gradients of one backward of each stage, and what a training of a few steps reports.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml

from pipeline.config import Recipe
from pipeline.training.batches import read
from pipeline.training.job import Job, QuietReporter
from pipeline.training.loop import train_run
from pipeline.training.stage import StageRun
from pipeline.training.world import World
from preprocessing.dataset import ClipDataset
from vdsm.disentangler import Disentangler


class Recorder(QuietReporter):
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.audit: list[dict[str, Any]] = []

    def log(self, record: dict[str, Any]) -> None:
        if record["kind"] != "pictures":
            self.records.append(record)

    def save(self, state: dict[str, Any] | None, place: Any, *, last: bool, audit: Any = ()) -> None:
        self.audit += audit


def gradients(job: Job, world: World) -> dict[str, Any]:
    """Of both stages at step 2, by stage and name of the parameter."""
    found = {}
    for stage in (1, 2):
        torch.manual_seed(0)
        run = StageRun(job, stage, Disentangler(job.model), Recorder(), world)  # type: ignore[arg-type]
        windows = run.order.at(2).part(world.rows(4))
        run.gradients(2, read(job.clips, windows, 4), run.weights(2))
        found[stage] = {name: p.grad for name, p in run.module.named_parameters() if p.grad is not None}
    return found


def main(rank: int, size: int, store: str, data: str, recipe_path: str, out: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    recipe = Recipe.model_validate(yaml.safe_load(Path(recipe_path).read_text()))
    # Dropout is drawn per rank, so without it the number of ranks makes no difference but rounding.
    model = replace(recipe.model, rnn_dropout=0.0)
    training = replace(recipe.training, log_interval=1, validation_interval=4)
    job = Job(model=model, training=training, seed=3, clips=ClipDataset(data, "train"), notes={})
    world, recorder = World(rank, size), Recorder()
    found = gradients(job, world)
    train_run(job, recorder, world)
    torch.save({"gradients": found, "records": recorder.records}, out)
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
