"""What `vdsm train --dry-run` prints: what the run would do, and what is missing for it."""

import os
from pathlib import Path

from cluster.errors import UserError
from cluster.memory import memory_bytes
from cluster.ray_runtime import in_cluster
from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import is_end, newest_intact
from pipeline.runs.pairs import run_pairs
from pipeline.runs.start import new_start
from pipeline.runs.store import changed_settings, data_hash
from pipeline.trackers.registry import check_installed
from pipeline.training.job import Job
from pipeline.training.notes import notes_on
from pipeline.training.plan import StagePlan, make_plan, plan_of
from preprocessing.appearance.agreement import agreement, describe
from preprocessing.appearance.pairs import MinedPairs
from preprocessing.dataset.reader import ClipDataset

_CERTAINLY = 3
"""How many times the memory of a machine an estimate must be for a training to be refused: estimates are no bounds."""


def preview(recipe: Recipe, data: str, run: str | None) -> tuple[list[str], list[str]]:
    """Return lines that describe the run, and lines that name missing items. Write nothing.

    Args:
        recipe: the settings.
        data: the dataset, as an absolute path or URL.
        run: folder of the run, as an absolute path or URL; None if it was not named.

    Raises:
        UserError: the recipe does not fit the data.
    """
    training, lines, missing = recipe.training, [], []
    manifest_hash: str | None = None
    plans: list[StagePlan]
    pairs: MinedPairs | None = None
    try:
        clips = ClipDataset(data, "train")
        manifest_hash = data_hash(clips.manifest)
        lines.append(f"data: {len(clips):,} clips of {len(set(clips.identities)):,} identities in {data}")
    except UserError as error:
        missing.append(f"data: {error}")
        plans = plan_of(recipe.model, training)
    else:
        try:
            pairs = run_pairs(training, clips)
            job = Job(model=recipe.model, training=training, seed=recipe.seed, clips=clips, pairs=pairs)
            plans = make_plan(job)
        except ValueError as error:
            raise UserError(f"{data}: {error}") from error
    lines += map(str, plans)
    if pairs is not None:
        shares = agreement(pairs, clips.identities, clips.labels)
        lines += [f"pairs by {training.appearance.descriptor}: {line}" for line in describe(pairs, shares)]
    least = f"{training.min_workers} to " if training.min_workers else ""
    resources = ", one GPU each" if training.use_gpu else ""
    resources += f", one {training.worker_resource} each" if training.worker_resource else ""
    lines += notes_on(training)
    lines.append(f"{least}{training.num_workers} workers x {training.threads_per_worker} threads{resources}")
    missing += _missing_resources(recipe, plans)
    try:
        check_installed(training.trackers)
    except UserError as error:
        missing.append(f"trackers: {error}")
    try:
        start = new_start(recipe, run)
        lines += start.describe() if start else []
    except UserError as error:
        missing.append(f"start: {error}")
    if run is None:
        missing.append("run: give --out and --name")
    else:
        state, problems = _inspect_run(recipe, run, manifest_hash)
        lines.append(f"run: {run}{state}")
        missing += problems
    return lines, missing


def _inspect_run(recipe: Recipe, run: str, data_sha256: str | None) -> tuple[str, list[str]]:
    """Return the state of the run at `run`, and the problems that prevent training it."""
    problems: list[str] = []
    try:
        if not storage.exists(storage.join(run, "run.json")):
            if not storage.is_remote(run) and not _is_writable(Path(run)):
                problems.append(f"run: {run} is not writable; choose another --out")
            return ", a new one", problems
        changes = changed_settings(run, recipe, data_sha256)
        if changes:
            problems.append(f"run: it was started with other settings: {'; '.join(changes)}")
        position = newest_intact(run, recipe.training)
    except UserError as error:
        return "", [*problems, f"run: {error}"]
    if is_end(position, recipe.training):
        return ", finished", problems
    return f", resumes from {position}" if position else ", started, without a checkpoint", problems


def _is_writable(path: Path) -> bool:
    while not path.exists():
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK)


def _missing_resources(recipe: Recipe, plans: list[StagePlan]) -> list[str]:
    """Return what this machine lacks, if the training would run on it alone."""
    training, missing = recipe.training, []
    if in_cluster():
        return []  # it may grow: the job waits until there is room
    workers = training.min_workers or training.num_workers
    if training.use_gpu:
        import torch

        if torch.cuda.device_count() < workers:
            missing.append(f"GPUs: {workers} are needed and this machine has {torch.cuda.device_count()}")
        missing += _missing_gpu_memory(max(plan.memory_bytes for plan in plans), torch.cuda.device_count())
    if training.worker_resource:
        missing.append(f"{training.worker_resource}: {workers} are needed; start Ray with them and set RAY_ADDRESS")
    needed, available = _needed(recipe, plans), memory_bytes("available")
    if not training.use_gpu and available is not None and needed > available:
        missing.append(f"memory: about {needed / 1e9:.1f} GB are needed and {available / 1e9:.1f} GB are available")
    return missing


def _missing_gpu_memory(needed: int, gpus: int) -> list[str]:
    """Return whether the smallest of this machine's GPUs lacks memory for one worker."""
    import torch

    smallest = min((torch.cuda.get_device_properties(number).total_memory for number in range(gpus)), default=None)
    if smallest is None or needed <= smallest:
        return []
    return [
        f"GPU memory: about {needed / 1e9:.1f} GB per worker are needed and the smallest GPU has {smallest / 1e9:.1f} "
        "GB; raise accumulation, or the number of workers"
    ]


def check_memory(recipe: Recipe) -> None:
    """Check that a training on the CPUs of this machine alone is not beyond all of its memory.

    Raises:
        UserError: it needs several times of it, so that it would end in the middle, or be killed.
    """
    training = recipe.training
    if in_cluster() or training.use_gpu:
        return
    needed, total = _needed(recipe, plan_of(recipe.model, training)), memory_bytes()
    if total is not None and needed > _CERTAINLY * total:
        raise UserError(
            f"{training.num_workers} workers need about {needed / 1e9:,.1f} GB of memory and this machine has "
            f"{total / 1e9:,.1f} GB; lower the sizes of the model, batch_clips or clip_frames, or raise accumulation"
        )


def _needed(recipe: Recipe, plans: list[StagePlan]) -> int:
    """Return the memory of all workers in bytes, estimated."""
    training = recipe.training
    return (training.min_workers or training.num_workers) * max(plan.memory_bytes for plan in plans)
