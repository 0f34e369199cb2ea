"""The begin of a training, whatever starts its workers: the plan, the lock, the folder of the run, and its position."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.lock import run_lock
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.training.plan import StagePlan
    from pipeline.training.position import TrainPosition

log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """A run that is about to be trained."""

    recipe: Recipe
    """The recipe, with what a run keeps that has begun; see `pipeline.runs.store.as_started`."""
    manifest_sha256: str
    """SHA-256 of the manifest of its dataset."""
    position: "TrainPosition | None"
    """Position of its newest checkpoint, if there is one."""


@contextlib.contextmanager
def locked_run(recipe: Recipe, data: str, run: str) -> Iterator[Beginning | None]:
    """Lock a run for the block, and create its folder or check that it may be resumed. Give None if it is finished.

    Args:
        recipe: settings of the model and of the training.
        data: the dataset, as an absolute path or URL.
        run: folder of the run, as an absolute path or URL.

    Raises:
        UserError: the run was started with other settings or data, another process trains it, the data is missing, or
            a tracker is not installed.
    """
    # torch takes seconds to import, which --help and invalid input should not wait for.
    from pipeline.runs.checkpoints import CheckpointStore, is_end
    from pipeline.runs.start import keep_start, new_start
    from pipeline.runs.store import as_started, kept_settings, open_run
    from pipeline.trackers.registry import check_installed
    from pipeline.training.notes import notes_on
    from preprocessing.dataset.manifest import read_manifest

    check_installed(recipe.training.trackers)
    manifest, manifest_sha256 = read_manifest(data)
    storage.check_writable(run)
    with run_lock(run):
        start = new_start(recipe, run)  # before the run is created, which a model that does not fit prevents
        wanted, recipe = recipe, as_started(run, recipe)
        for name, value in kept_settings(recipe).items():
            if value != kept_settings(wanted)[name]:
                log.info("training.%s stays %s, as when the run was started", name, value)
        open_run(run, recipe, data, manifest)
        keep_start(run, start)
        _keep_pairs(recipe, data, run)
        checkpoints = CheckpointStore(run, recipe.training)
        position = checkpoints.newest()
        if is_end(position, recipe.training):
            checkpoints.warn_of_damage()
            log.info("%s is finished; nothing is left to train", run)
            yield None
            return
        if position is None and recipe.training.stages == "2":
            raise UserError(
                f"{run}: stage 2 needs a finished stage 1 in this run; train with training.stages 1 or both first"
            )
        if "table" in manifest:  # of other formats, workers read all clips anyway, and this process need not
            _keep_held_out(recipe, data, run)
        for note in notes_on(recipe.training):
            log.warning("%s", note)
        if position is not None:
            log.info("resuming %s from %s", run, position)
        yield Beginning(recipe, manifest_sha256, position)


def _keep_pairs(recipe: Recipe, data: str, run: str) -> None:
    """Store the pairs that the workers train on, if stage 1 is paired by appearance."""
    from pipeline.runs.pairs import keep_pairs, run_pairs
    from preprocessing.dataset.reader import ClipDataset

    if recipe.training.stage1.pairing == "appearance":
        keep_pairs(run, run_pairs(recipe.training, ClipDataset(data, "train"), run))


def _keep_held_out(recipe: Recipe, data: str, run: str) -> None:
    """Store which clips of data of format 3 are held out for validation, if the workers read that from a file."""
    from pipeline.runs.held_out import keep_held_out
    from preprocessing.dataset.reader import ClipDataset

    with contextlib.suppress(ValueError):  # where the plan is made, it says why the data does not fit
        keep_held_out(recipe, ClipDataset(data, "train"), run)


def plan_stages(recipe: Recipe, data: str) -> "list[StagePlan]":
    """Return what each stage will do.

    Raises:
        UserError: the data is missing or does not fit the recipe.
    """
    from pipeline.runs.held_out import run_held_out
    from pipeline.runs.pairs import run_pairs
    from pipeline.training.job import Job
    from pipeline.training.plan import make_plan
    from preprocessing.dataset.reader import ClipDataset

    clips = ClipDataset(data, "train")
    try:
        pairs = run_pairs(recipe.training, clips)
        job = Job(
            model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, pairs=pairs,
            held_out=run_held_out(recipe, clips),
        )  # fmt: skip
        return make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error


def log_plan(recipe: Recipe, data: str) -> None:
    """Log what each stage will do; see `plan_stages`."""
    for plan in plan_stages(recipe, data):
        log.info("%s", plan)
