"""`vdsm train`: both stages under Ray Train, from shards to a run with checkpoints and logs.

The same command goes on with a run that was interrupted, and finds a finished one finished.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import os
import sys

from cluster import ray_runtime
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.runs.lock import alone as alone

log = logging.getLogger(__name__)


class TrainCommand(Recipe, Controls):
    """Train both stages of the model on a dataset. Started again under the same name, it goes on where it was."""

    data: str
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote."""
    out: str = ""
    """Folder or s3://bucket/prefix of the runs. Only a dry run goes without."""
    name: str = ""
    """Name of the run; its folder is OUT/NAME. Only a dry run goes without."""
    profile: bool = False
    """Keep a trace of torch's profiler of three steps of each stage, in the run's folder."""


def train(command: TrainCommand) -> None:
    """Train, or go on training, until the stages asked for are finished.

    Raises:
        UserError: the data does not fit the recipe, the run of that name was begun with other settings or data, or
            the training failed in a way that the user can put right.
        KeyboardInterrupt: ctrl-C, after a checkpoint was saved.
    """
    # torch and Ray take seconds to import, which --help and mistakes should not wait for.
    from pipeline.runs.store import absolute, run_url

    recipe = Recipe.model_validate({name: getattr(command, name) for name in Recipe.model_fields})
    named = bool(command.out and command.name)
    data, run = absolute(command.data), run_url(command.out, command.name) if named else None
    if command.dry_run:
        from pipeline.ray_train.dry_run import preview

        lines, missing = preview(recipe, data, run)
        lines += [f"missing: {line}" for line in missing] + ["nothing was started (--dry-run)"]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        if missing:
            raise UserError(f"missing for this training: {'; '.join(missing)}")
        return
    if run is None:
        raise UserError("--out and --name are needed: the folder of the runs, and a name for this one")
    _say_plan(recipe, data)
    train_recipe(recipe, data, run, profile=command.profile)


def _say_plan(recipe: Recipe, data: str) -> None:
    """Logs what will be done; UserError where the data does not fit the recipe."""
    from pipeline.training.job import Job
    from pipeline.training.plan import make_plan
    from preprocessing.dataset.reader import ClipDataset

    clips = ClipDataset(data, "train")
    job = Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, notes={})
    try:
        plans = make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    for plan in plans:
        log.info("%s", plan)


def train_recipe(recipe: Recipe, data: str, run: str, *, profile: bool = False) -> None:
    """Train the run at `run` to its end, from wherever it is; both places absolute. `profile`: keep a trace.

    Raises:
        UserError: the run was begun with other settings or data, or failed in a way that the user can put right.
        KeyboardInterrupt: ctrl-C, after a checkpoint was saved.
    """
    from pipeline.runs.store import is_finished, open_run
    from preprocessing.dataset.reader import read_manifest

    manifest, manifest_sha256 = read_manifest(data)
    storage.check_writable(run)
    with alone(run):
        open_run(run, recipe, data, manifest)
        if is_finished(run, recipe.training):
            log.info("%s is finished; nothing is left to train", run)
            return
        needed = recipe.training.num_workers * recipe.training.threads_per_worker
        with ray_runtime.connect(num_cpus=max(needed, len(os.sched_getaffinity(0)))):
            _train(recipe, data, manifest_sha256, run, profile)


def _train(recipe: Recipe, data: str, manifest_sha256: str, run: str, profile: bool) -> None:
    from pipeline.ray_train import driver as ray_job
    from pipeline.ray_train.worker import WorkerConfig
    from pipeline.runs.checkpoints import CheckpointStore
    from pipeline.runs.log import RunLog
    from pipeline.training.loop import stages_of

    training = recipe.training
    place = CheckpointStore(run, training).newest()
    if place is None and training.stages == "2":
        raise UserError(
            f"{run}: stage 2 needs a finished stage 1 in this run; train with training.stages 1 or both first"
        )
    total = training.stage1.steps + (training.stage2.steps if 2 in stages_of(training) else 0)
    run_log = RunLog(run, total, training.stage1.steps)
    if place is not None:
        log.info("%s goes on from %s", run, place)
    worker_config = WorkerConfig(
        recipe=recipe, data=data, manifest_sha256=manifest_sha256, run_url=run, profile=profile
    )
    try:
        outcome = ray_job.fit(worker_config, run_log)
        where = {"stage": outcome["stage"], "step": outcome["step"]}
        run_log.event("finished" if outcome["finished"] else "stopped", **where)
    finally:
        run_log.close()
    if not outcome["finished"]:
        log.info("stopped at stage %d, step %d", outcome["stage"], outcome["step"])
        raise KeyboardInterrupt
    log.info("finished: %s", run)


main = entry(TrainCommand, train, prog="vdsm train")


if __name__ == "__main__":
    main()
