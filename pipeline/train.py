"""`vdsm train`: both stages under Ray Train, from shards to a run with checkpoints and logs.

The same command goes on with a run that was interrupted, and finds a finished one finished.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster import command_line, ray_runtime, storage
from cluster.errors import UserError
from cluster.settings import Controls
from pipeline.config import Recipe

log = logging.getLogger(__name__)


class TrainCommand(Recipe, Controls):
    """Train both stages of the model on a dataset. Started again under the same name, it goes on where it was."""

    data: str
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote."""
    out: str
    """Folder or s3://bucket/prefix of the runs."""
    name: str
    """Name of the run; its folder is OUT/NAME."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command's entry."""
    command_line.run(lambda words: train(command_line.parse(TrainCommand, words, prog="vdsm train")), argv)


def train(command: TrainCommand) -> None:
    """Train, or go on training, until the stages asked for are finished.

    Raises:
        UserError: the data does not fit the recipe, the run of that name was begun with other settings or data, or
            the training failed in a way that the user can put right.
        KeyboardInterrupt: ctrl-C, after a checkpoint was saved.
    """
    # torch and Ray take seconds to import, which --help and mistakes should not wait for.
    from pipeline.training.plan import make_plan
    from pipeline.training.run_store import absolute, run_url
    from pipeline.training.stage import Job
    from preprocessing.dataset import ClipDataset

    recipe = Recipe.model_validate({name: getattr(command, name) for name in Recipe.model_fields})
    training, data, run = recipe.training, absolute(command.data), run_url(command.out, command.name)
    clips = ClipDataset(data, "train")
    job = Job(model=recipe.model, training=training, seed=recipe.seed, clips=clips, notes={})
    try:
        plans = make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    if command.dry_run:
        workers = f"{training.num_workers} workers x {training.threads_per_worker} threads"
        summary = f"data: {len(clips):,} clips of {len(set(clips.identities)):,} identities in {data}"
        lines = [summary, *map(str, plans), f"{workers}{', one GPU each' if training.use_gpu else ''}, into {run}"]
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, "nothing was started (--dry-run)"]))
        return
    storage.check_writable(run)
    for plan in plans:
        log.info("%s", plan)
    train_recipe(recipe, data, run)


def train_recipe(recipe: Recipe, data: str, run: str) -> None:
    """Train the run at `run` to its end, from wherever it is; both places absolute.

    Raises:
        UserError: the run was begun with other settings or data, or failed in a way that the user can put right.
        KeyboardInterrupt: ctrl-C, after a checkpoint was saved.
    """
    from pipeline.training.run_store import is_finished, open_run
    from preprocessing.dataset import read_manifest

    manifest, manifest_sha256 = read_manifest(data)
    with alone(run):
        open_run(run, recipe, data, manifest)
        if is_finished(run, recipe.training):
            log.info("%s is finished; nothing is left to train", run)
            return
        needed = recipe.training.num_workers * recipe.training.threads_per_worker
        with ray_runtime.connect(num_cpus=max(needed, len(os.sched_getaffinity(0)))):
            _train(recipe, data, manifest_sha256, run)


def _train(recipe: Recipe, data: str, manifest_sha256: str, run: str) -> None:
    from pipeline.training import ray_job, resume
    from pipeline.training.loop import stages_of
    from pipeline.training.ray_worker import Assignment
    from pipeline.training.run_log import RunLog

    training = recipe.training
    place, fallback = resume.find(run, training)
    if place is None and training.stages == "2":
        raise UserError(
            f"{run}: stage 2 needs a finished stage 1 in this run; train with training.stages 1 or both first"
        )
    total = training.stage1.steps + (training.stage2.steps if 2 in stages_of(training) else 0)
    run_log = RunLog(run, total, training.stage1.steps)
    if place is not None:
        log.info("%s goes on from %s", run, place)
    assignment = Assignment(recipe=recipe, data=data, manifest_sha256=manifest_sha256, run_url=run, fallback=fallback)
    try:
        outcome = ray_job.fit(assignment, run_log)
        where = {"stage": outcome["stage"], "step": outcome["step"]}
        run_log.event("finished" if outcome["finished"] else "stopped", **where)
    finally:
        run_log.close()
    if not outcome["finished"]:
        log.info("stopped at stage %d, step %d", outcome["stage"], outcome["step"])
        raise KeyboardInterrupt
    log.info("finished: %s", run)


@contextlib.contextmanager
def alone(run: str) -> Iterator[None]:
    """Keeps a second training out of the folder of a local run, until the block or this process ends."""
    if storage.is_s3(run):
        yield
        return
    with (Path(run) / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run}: another process is training this run; wait, or choose another --name") from None
        yield


if __name__ == "__main__":
    main()
