"""The training of both stages: a plain function over torch, which knows nothing of Ray.

A run that was stopped and resumed ends with the same weights, bit for bit, as one that was not: see `stage.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch

from pipeline.training.batches import check_frames
from pipeline.training.config import TrainingConfig
from pipeline.training.order import key
from pipeline.training.stage import Job, Outcome, Reporter, StageRun, stage_config
from pipeline.training.world import World
from vdsm.disentangler import Disentangler


def stages_of(training: TrainingConfig) -> tuple[Literal[1, 2], ...]:
    """The stages that `training.stages` asks for, in order."""
    return (1, 2) if training.stages == "both" else ((1,) if training.stages == "1" else (2,))


def train_run(
    job: Job, reporter: Reporter, world: World | None = None, resume: Mapping[str, Any] | None = None
) -> Outcome:
    """Trains the stages of `job`, going on from the checkpoint `resume` where there is one.

    Raises ValueError for data that does not fit the recipe or a checkpoint that does not fit the stages, and
    NonFiniteLoss where the training diverges. All ranks raise the same.
    """
    world = world or World()
    check_frames(job.clips, job.model)
    torch.manual_seed(key(job.seed, "weights"))
    disentangler = Disentangler(job.model)
    stage_done, step_done = 0, 0
    if resume is not None:
        disentangler.load_state_dict(resume["model"])
        stage_done, step_done = int(resume["stage"]), int(resume["step"])
    disentangler.to(world.device)
    outcome = Outcome(stage_done, step_done, finished=True)
    for stage in stages_of(job.training):
        if stage < stage_done or (stage == stage_done and step_done >= stage_config(job.training, stage).steps):
            continue
        if stage == 2 and (stage_done, step_done) < (1, job.training.stage1.steps):
            raise ValueError(
                "training.stages is 2, but this run has no finished stage 1; train it with training.stages both"
            )
        outcome = train_stage(job, stage, disentangler, reporter, world, resume if stage == stage_done else None)
        stage_done, step_done, finished = outcome
        if not finished:
            break
    return outcome


def train_stage(
    job: Job,
    stage: Literal[1, 2],
    disentangler: Disentangler,
    reporter: Reporter,
    world: World,
    resume: Mapping[str, Any] | None = None,
) -> Outcome:
    """Trains one stage of `disentangler` in place, from its first step or from a checkpoint of this stage, whose
    weights `disentangler` must already have."""
    run = StageRun(job, stage, disentangler, reporter, world)
    if resume is None:
        return run.run(0)
    run.optimiser.load_state_dict(cast(dict[str, Any], resume["optimiser"]))
    return run.run(int(resume["step"]))
