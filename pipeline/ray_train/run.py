"""Train a run under Ray Train, from its current position to its end."""

import logging
import os
from typing import TYPE_CHECKING

from cluster import ray_runtime
from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage.fence import active_fences
from pipeline.recipe import Recipe
from pipeline.runs.lock import run_lock

if TYPE_CHECKING:
    from pipeline.training.plan import StagePlan
    from pipeline.training.position import TrainPosition

log = logging.getLogger(__name__)


def train_recipe(recipe: Recipe, data: str, run: str, *, profile: bool = False) -> None:
    """Train the run at `run` to its end, or resume it from its newest checkpoint.

    Args:
        recipe: settings of the model and of the training.
        data: the dataset, as an absolute path or URL.
        run: folder of the run, as an absolute path or URL.
        profile: keep a trace of torch's profiler in the folder of the run.

    Raises:
        UserError: the run was started with other settings or data, or the training failed because of invalid input.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    require("ray")
    # torch takes seconds to import, which --help and invalid input should not wait for.
    from pipeline.runs.checkpoints import CheckpointStore, is_end
    from pipeline.runs.start import keep_start, new_start
    from pipeline.runs.store import open_run
    from preprocessing.dataset.manifest import read_manifest

    manifest, manifest_sha256 = read_manifest(data)
    storage.check_writable(run)
    with run_lock(run):
        start = new_start(recipe, run)  # before the run is created, which a model that does not fit prevents
        open_run(run, recipe, data, manifest)
        keep_start(run, start)
        _keep_pairs(recipe, data, run)
        checkpoints = CheckpointStore(run, recipe.training)
        position = checkpoints.newest()
        if is_end(position, recipe.training):
            checkpoints.warn_of_damage()
            log.info("%s is finished; nothing is left to train", run)
            return
        if position is None and recipe.training.stages == "2":
            raise UserError(
                f"{run}: stage 2 needs a finished stage 1 in this run; train with training.stages 1 or both first"
            )
        needed = recipe.training.num_workers * recipe.training.threads_per_worker
        with ray_runtime.connect(num_cpus=max(needed, len(os.sched_getaffinity(0)))):
            _train(recipe, data, manifest_sha256, run, profile, position)


def _train(
    recipe: Recipe, data: str, manifest_sha256: str, run: str, profile: bool, position: "TrainPosition | None"
) -> None:
    from pipeline.ray_train.driver import fit
    from pipeline.ray_train.worker import WorkerConfig
    from pipeline.runs.log import RunLog
    from pipeline.training.position import START

    if position is not None:
        log.info("resuming %s from %s", run, position)
    worker_config = WorkerConfig(
        recipe=recipe,
        data=data,
        manifest_sha256=manifest_sha256,
        run_url=run,
        profile=profile,
        fences=active_fences(),
    )
    with RunLog(run, recipe.training, position or START) as run_log:
        outcome = fit(worker_config, run_log)
        event = "finished" if outcome.finished else "stopped"
        run_log.event(event, stage=outcome.stage, step=outcome.step)
        if not outcome.finished:
            log.info("stopped at stage %d, step %d", outcome.stage, outcome.step)
            raise KeyboardInterrupt
    log.info("finished: %s", run)


def _keep_pairs(recipe: Recipe, data: str, run: str) -> None:
    """Store the pairs that the workers train on, if stage 1 is paired by appearance."""
    from pipeline.runs.pairs import keep_pairs, run_pairs
    from preprocessing.dataset.reader import ClipDataset

    if recipe.training.stage1.pairing == "appearance":
        keep_pairs(run, run_pairs(recipe.training, ClipDataset(data, "train"), run))


def plan_stages(recipe: Recipe, data: str) -> "list[StagePlan]":
    """Return what each stage will do.

    Raises:
        UserError: the data is missing or does not fit the recipe.
    """
    from pipeline.runs.pairs import run_pairs
    from pipeline.training.job import Job
    from pipeline.training.plan import make_plan
    from preprocessing.dataset.reader import ClipDataset

    clips = ClipDataset(data, "train")
    try:
        pairs = run_pairs(recipe.training, clips)
        job = Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, pairs=pairs)
        return make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error


def log_plan(recipe: Recipe, data: str) -> None:
    """Log what each stage will do; see `plan_stages`."""
    for plan in plan_stages(recipe, data):
        log.info("%s", plan)
