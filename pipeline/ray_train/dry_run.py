"""What `vdsm train --dry-run` says: what would be done, and what is missing for it."""

import os
import re
from pathlib import Path

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import checkpoints
from pipeline.runs.store import changes_of, data_hash, is_finished
from pipeline.training.job import Job
from pipeline.training.plan import StagePlan, make_plan, plan_of


def preview(recipe: Recipe, data: str, run: str | None) -> tuple[list[str], list[str]]:
    """Lines that say what would be done, and lines that say what is missing. Writes nothing.

    `run` is none where the run was not named. Raises UserError where the recipe does not fit the data.
    """
    training, lines, missing = recipe.training, [], []
    manifest_hash: str | None = None
    plans: list[StagePlan]
    try:
        from preprocessing.dataset.reader import ClipDataset

        clips = ClipDataset(data, "train")
        job = Job(model=recipe.model, training=training, seed=recipe.seed, clips=clips, notes={})
        manifest_hash = data_hash(clips.manifest)
        lines.append(f"data: {len(clips):,} clips of {len(set(clips.identities)):,} identities in {data}")
    except UserError as error:
        missing.append(f"data: {error}")
        plans = plan_of(recipe.model, training)
    else:
        try:
            plans = make_plan(job)
        except ValueError as error:
            raise UserError(f"{data}: {error}") from error
    lines += map(str, plans)
    least = f"{training.min_workers} to " if training.min_workers else ""
    own = ", one GPU each" if training.use_gpu else ""
    own += f", one {training.worker_resource} each" if training.worker_resource else ""
    lines.append(f"{least}{training.num_workers} workers x {training.threads_per_worker} threads{own}")
    missing += _resources(recipe, plans)
    if run is None:
        missing.append("run: give --out and --name")
    else:
        lines.append(f"run: {run}{_state(recipe, run, manifest_hash, missing)}")
    return lines, missing


def _state(recipe: Recipe, run: str, data_sha256: str | None, missing: list[str]) -> str:
    """What is at `run` already, in words; what stands in the way goes to `missing`."""
    try:
        if not storage.exists(storage.join(run, "run.json")):
            if not storage.is_s3(run) and not _may_write(Path(run)):
                missing.append(f"run: {run} cannot be written")
            return ", a new one"
        changed = changes_of(run, recipe, data_sha256)
        if changed:
            missing.append(f"run: it was begun with other settings: {'; '.join(changed)}")
        if is_finished(run, recipe.training):
            return ", finished"
        found = checkpoints(run, recipe.training)
    except UserError as error:
        missing.append(f"run: {error}")
        return ""
    return f", goes on from {max(found)}" if found else ", begun"


def _may_write(path: Path) -> bool:
    while not path.exists():
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK)


def _resources(recipe: Recipe, plans: list[StagePlan]) -> list[str]:
    """What this machine lacks, where the training would run on it alone."""
    training, lacking = recipe.training, []
    if os.environ.get("RAY_ADDRESS") or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return []  # on a cluster, which may grow: the job waits until there is room
    workers = training.min_workers or training.num_workers
    if training.use_gpu:
        import torch

        if torch.cuda.device_count() < workers:
            lacking.append(f"GPUs: {workers} are needed and this machine has {torch.cuda.device_count()}")
    if training.worker_resource:
        lacking.append(f"{training.worker_resource}: {workers} are needed; start Ray with them and set RAY_ADDRESS")
    needed, there = workers * max(plan.memory_bytes for plan in plans), _memory_bytes()
    if not training.use_gpu and there is not None and needed > there:
        lacking.append(f"memory: about {needed / 1e9:.1f} GB are needed and {there / 1e9:.1f} GB are available")
    return lacking


def _memory_bytes() -> int | None:
    """Memory that is available on this machine; none where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
