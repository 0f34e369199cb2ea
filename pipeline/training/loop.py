"""The training loop: a plain function over torch, free of Ray.

A run that was stopped and resumed ends with the same weights, bit for bit, as one that was not: see `step.py`. A loss
that is not finite or blows up rolls the run back to its last good checkpoint with a lower learning rate, up to
`max_rollbacks` times.
"""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.training.batches import check_frames
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.job import Job
from pipeline.training.meter import Meter
from pipeline.training.position import START, Outcome, TrainPosition
from pipeline.training.precision import resolve_precision
from pipeline.training.reporter import Reporter
from pipeline.training.stage import StageRun
from pipeline.training.state import BestValidation, TrainState
from vdsm.disentangler import Disentangler
from vdsm.float_formats import set_flags
from vdsm.warm_start import load_start_weights


def train_run(
    job: Job, reporter: Reporter, world: DistributedContext | None = None, resume: TrainState | None = None
) -> Outcome:
    """Train the selected stages of `job`, from the checkpoint `resume` if there is one.

    Raises:
        ValueError: the data does not fit the recipe, or the checkpoint does not fit the stages.
        DivergenceError: the training diverges even after `max_rollbacks` rollbacks. All ranks raise the same.
    """
    world = world or DistributedContext()
    set_flags(resolve_precision(job.training, world), deterministic=job.training.deterministic)
    check_frames(job.clips, job.model)
    lr_scale, rollbacks = (resume.lr_scale, resume.rollbacks) if resume else (1.0, 0)
    while True:
        try:
            return _train_from(resume, job, reporter, world, lr_scale, rollbacks)
        except DivergenceError as error:
            cause = {"terms": error.terms, "clips": error.clips, "error": str(error)}
            _log_event(reporter, world, "divergence", error.position, cause)
            if rollbacks >= job.training.max_rollbacks:
                raise
            # A checkpoint is not good if its very next step diverges.
            is_useless = resume is not None and resume.position.after_next_step(job.training) == error.position
            resume = reporter.restore(before=resume.position if resume is not None and is_useless else None)
            lr_scale, rollbacks = lr_scale * job.training.rollback_rate, rollbacks + 1
            position = resume.position if resume else START
            _log_event(reporter, world, "rollback", position, {"rate_factor": lr_scale, "number": rollbacks})


def train_stage(run: StageRun, first_step: int = 0) -> Outcome:
    """Train a stage from `first_step`, the number of steps already done, to its end or until the reporter stops it."""
    training, steps, reporter = run.job.training, run.config.steps, run.reporter
    meter = Meter(run.config.batch_clips, run.world)
    run.module.train()
    with run.batches(first_step) as batches, reporter.profile(run.stage) as step_profiler:
        for step, batch in enumerate(batches, start=first_step):
            if step == first_step:
                run.stepper.warm_up_ddp_buckets(step, batch)
            result = run.stepper.step(step, batch, reporter)
            meter.add(result.terms, result.gradient_norm)
            run.record_audit(step, batch)
            step_profiler()

            done = step + 1
            is_last_step = done == steps
            is_log_step = is_last_step or done % training.log_interval == 0
            is_validation_step = is_last_step or done % training.validation_interval == 0
            is_image_step = training.picture_interval > 0 and (is_last_step or done % training.picture_interval == 0)
            is_stopping = result.decision.stop and not is_last_step
            is_preempted = result.decision.preempted

            is_checkpoint_step = is_last_step or done % training.checkpoint_interval == 0
            is_saving = is_checkpoint_step or is_stopping or is_preempted or result.decision.due
            if is_log_step or is_validation_step or is_image_step or is_saving:
                run.stepper.settle()
            if is_log_step:
                run.log_train(done, meter, waited_s=batches.waited_s)
            with meter.paused():
                is_best = is_validation_step and run.validate_and_log(done)
                if is_image_step:
                    run.log_images(done)
                if is_preempted:
                    run.log_event("preemption notice", done)
                if is_saving or is_best:
                    run.save(done)
            if is_stopping:
                return Outcome(run.stage, done, finished=False)
    return Outcome(run.stage, steps, finished=True)


def _train_from(
    resume: TrainState | None,
    job: Job,
    reporter: Reporter,
    world: DistributedContext,
    lr_scale: float,
    rollbacks: int,
) -> Outcome:
    """Train the selected stages that `resume` has not finished."""
    torch.manual_seed(derive_seed(job.seed, "weights"))
    disentangler = Disentangler(job.model)
    if resume is not None:
        disentangler.load_state_dict(resume.weights)
    elif job.start_weights is not None:
        load_start_weights(disentangler, job.start_weights())
    else:
        disentangler.load_given_weights()
    disentangler.to(world.device)
    position = resume.position if resume else TrainPosition(0, 0)
    best_validation = dict(resume.best_validation) if resume else {}
    outcome = Outcome(*position, finished=True)
    for stage in job.training.selected_stages:
        if position >= TrainPosition(stage, job.training.stage(stage).steps):
            continue
        if stage == 2 and position.stage < 2:
            if position < TrainPosition(1, job.training.stage1.steps):
                raise ValueError(
                    "training.stages is 2, but this run has no finished stage 1; train it with training.stages both"
                )
            _load_stage1_weights(job.training, disentangler, reporter, best_validation)
        run = StageRun(
            job, stage, disentangler, reporter, world,
            lr_scale=lr_scale, rollbacks=rollbacks, best_validation=best_validation,
        )  # fmt: skip
        first_step = run.resume(resume) if resume is not None and stage == position.stage else 0
        outcome = train_stage(run, first_step)
        if not outcome.finished:
            break
        best_validation, position = run.best_validation, TrainPosition(outcome.stage, outcome.step)
    return outcome


def _load_stage1_weights(
    training: TrainingConfig,
    disentangler: Disentangler,
    reporter: Reporter,
    best_validation: Mapping[int, BestValidation],
) -> None:
    """Load the weights of stage 1 that stage 2 starts from: the last or the best, trained or averaged."""
    is_averaged = training.ema_decay > 0 and training.ema_used
    if training.stage2_start == "last" and not is_averaged:
        return  # the module already holds them
    step = best_validation[1].step if training.stage2_start == "best" else training.stage1.steps
    state = reporter.restore(TrainPosition(1, step))
    assert state is not None, "a reporter keeps the end and the best checkpoint of stage 1"
    weights = state.ema if is_averaged else state.weights
    assert weights is not None, "checkpoints hold the EMA where ema_decay is set"
    disentangler.load_state_dict(weights)


def _log_event(
    reporter: Reporter, world: DistributedContext, event: str, position: TrainPosition, details: Mapping[str, Any]
) -> None:
    if world.is_first:
        reporter.log({"kind": "event", "event": event, **position._asdict(), **details})
