"""The training of both stages: a plain function over torch, which knows nothing of Ray.

A run that was stopped and resumed ends with the same weights, bit for bit, as one that was not: see `stage.py`. A loss
that is not finite or blows up sends the run back to its last good checkpoint with a lower learning rate, a few times.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from pipeline.training.batches import check_frames
from pipeline.training.config import TrainingConfig
from pipeline.training.job import DivergenceError, Job, Outcome, Reporter, TrainPosition, stage_config
from pipeline.training.order import key
from pipeline.training.stage import StageRun
from pipeline.training.world import DistributedContext
from vdsm.disentangler import Disentangler

State = Mapping[str, Any]


def stages_of(training: TrainingConfig) -> tuple[Literal[1, 2], ...]:
    """The stages that `training.stages` asks for, in order."""
    return (1, 2) if training.stages == "both" else ((1,) if training.stages == "1" else (2,))


def train_run(
    job: Job, reporter: Reporter, world: DistributedContext | None = None, resume: State | None = None
) -> Outcome:
    """Trains the stages of `job`, going on from the checkpoint `resume` where there is one.

    Raises ValueError for data that does not fit the recipe or a checkpoint that does not fit the stages, and
    DivergenceError where the training diverges although it was slowed down. All ranks raise the same.
    """
    world = world or DistributedContext()
    check_frames(job.clips, job.model)
    slowdown = float(resume.get("slowdown", 1.0)) if resume else 1.0
    rollbacks = _rollbacks(job.training, slowdown)
    while True:
        begun = TrainPosition(int(resume["stage"]), int(resume["step"])) if resume else None
        try:
            return _train_from(job, reporter, world, resume, slowdown)
        except DivergenceError as error:
            if world.rank == 0:
                place = {"stage": error.place.stage, "step": error.place.step}
                reporter.event("divergence", **place, terms=error.terms, clips=error.clips, error=str(error))
            if rollbacks >= job.training.max_rollbacks:
                raise
            # A checkpoint from which not one step can be taken is no good one.
            useless = begun if begun is not None and _next_step(job.training, begun) == error.place else None
            rollbacks += 1
            resume = reporter.latest(before=useless)
            slowdown *= job.training.rollback_rate
            if world.rank == 0:
                back = TrainPosition(int(resume["stage"]), int(resume["step"])) if resume else TrainPosition(1, 0)
                reporter.event("rollback", stage=back.stage, step=back.step, rate_factor=slowdown, number=rollbacks)


def _rollbacks(training: TrainingConfig, slowdown: float) -> int:
    """How many rollbacks led to `slowdown`, which is all that a checkpoint needs to know of them."""
    count, factor = 0, 1.0
    while training.rollback_rate < 1 and factor > slowdown * (1 + 1e-9):
        factor, count = factor * training.rollback_rate, count + 1
    return count


def _next_step(training: TrainingConfig, place: TrainPosition) -> TrainPosition:
    if place.stage == 1 and place.step == training.stage1.steps:
        return TrainPosition(2, 1)
    return TrainPosition(place.stage, place.step + 1)


def _train_from(
    job: Job, reporter: Reporter, world: DistributedContext, resume: State | None, slowdown: float
) -> Outcome:
    torch.manual_seed(key(job.seed, "weights"))
    disentangler = Disentangler(job.model)
    done, bests = TrainPosition(0, 0), {}
    if resume is not None:
        disentangler.load_state_dict(resume["model"])
        done = TrainPosition(int(resume["stage"]), int(resume["step"]))
        bests = {int(stage): (int(step), float(elbo)) for stage, (step, elbo) in resume.get("bests", {}).items()}
    else:
        disentangler.load_given_weights()
    disentangler.to(world.device)
    outcome = Outcome(*done, finished=True)
    for stage in stages_of(job.training):
        if stage < done.stage or (stage == done.stage and done.step >= stage_config(job.training, stage).steps):
            continue
        if stage == 2 and done.stage < 2:
            if done < (1, job.training.stage1.steps):
                raise ValueError(
                    "training.stages is 2, but this run has no finished stage 1; train it with training.stages both"
                )
            _start_stage_2(job.training, disentangler, reporter, bests)
        run = StageRun(job, stage, disentangler, reporter, world, slowdown=slowdown, bests=bests)
        first = run.load(resume) if resume is not None and stage == done.stage else 0
        outcome = run.run(first)
        bests, done = run.bests, TrainPosition(outcome.stage, outcome.step)
        if not outcome.finished:
            break
    return outcome


def _start_stage_2(
    training: TrainingConfig, disentangler: Disentangler, reporter: Reporter, bests: Mapping[int, tuple[int, float]]
) -> None:
    """Gives `disentangler` the weights of stage 1 that were selected: of its end or of its best validation, trained or
    averaged."""
    averaged = training.ema_decay > 0 and training.ema_used
    if training.stage2_start == "last" and not averaged:
        return  # it has them
    step = bests[1][0] if training.stage2_start == "best" else training.stage1.steps
    state = reporter.at(TrainPosition(1, step))
    disentangler.load_state_dict(state["average" if averaged else "model"])
