"""One trial: a complete run of both stages by its own Ray Train workers, then its score."""

import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError, without_credentials
from cluster.storage import api as storage
from cluster.storage.fence import Fence, fenced
from pipeline.recipe import Recipe
from pipeline.tuning.sweep import Sweep

if TYPE_CHECKING:
    from pipeline.evaluation.judge_cache import StoredJudge

log = logging.getLogger(__name__)

SCORE = "score.json"
"""File in a run's folder with the scores that the sweep measured."""
MAX_REASON = 500
"""Maximum length of the stored reason of a failure, in characters."""


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """What all trials of a sweep share."""

    sweep: Sweep
    data: str
    """The dataset, an absolute path or URL."""
    url: str
    """Folder of the sweep, an absolute path or URL."""
    judge: "StoredJudge | None"
    """The judge that scores the trials; None if the data has no labels to judge by."""
    fences: tuple[Fence, ...] = ()
    """What the driver has locked; trials stop writing there when it has lost the lock."""

    def run_url(self, run: str) -> str:
        """Return the folder of a trial's run."""
        return storage.join(self.url, "runs", run)


def run_trial(config: dict[str, Any], recipe: Recipe, context: SweepContext) -> dict[str, Any]:
    """Train and score a trial; if it is restarted, its training resumes from its checkpoints.

    Args:
        config: what `StudySearcher.suggest` returned.
        recipe: the recipe with its values.
        context: what the trials share.

    Returns:
        The scores, or `error` with the reason of the failure, because one failed trial does not end a sweep.

    Raises:
        ray.exceptions.RayError: a process or machine was lost; another attempt may succeed.
    """
    import ray

    from pipeline.ray_train.run import train_recipe
    from pipeline.tuning.validation_split import check_scorable
    from preprocessing.dataset.reader import ClipDataset

    run = context.run_url(config["run"])
    try:
        with fenced(*context.fences):
            if (scores := _stored_scores(run, context)) is not None:  # its checkpoints may be deleted by now
                return scores
            check_scorable(ClipDataset(context.data, "train"), recipe)
            train_recipe(recipe, context.data, run)
            return stored_scores(recipe, run, context)
    except UserError as error:
        return {"error": _shortened(str(error))}
    except Exception as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, ray.exceptions.RayError):
            raise
        log.exception("trial %s failed", config["number"])
        return {"error": _shortened(f"{type(cause).__name__}: {cause}")}


def _shortened(text: str) -> str:
    return without_credentials(" ".join(text.split()))[:MAX_REASON]


def stored_scores(recipe: Recipe, run: str, context: SweepContext) -> dict[str, Any]:
    """Return the scores of a finished run, measured once and then read from its score.json.

    They are measured in a Ray task, so that Ray reserves CPUs for it.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    if (stored := _stored_scores(run, context)) is not None:
        return stored
    threads = recipe.training.num_workers * recipe.training.threads_per_worker
    # Outside the placement group that Ray Tune reserved for the trial, which has no CPU.
    outside = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]
    measure = ray.remote(num_cpus=threads, max_retries=3, scheduling_strategy=outside)(measure_run)
    scores: dict[str, Any] = ray.get(measure.remote(run, context, threads))
    storage.write_bytes(storage.join(run, SCORE), (json.dumps(scores, allow_nan=False) + "\n").encode())
    return scores


def _stored_scores(run: str, context: SweepContext) -> dict[str, Any] | None:
    """Return the scores that were measured on a run once it was finished; None if there are none yet."""
    url = storage.join(run, SCORE)
    return _scores_in(storage.read_bytes(url), context.sweep) if storage.exists(url) else None


def _scores_in(content: bytes, sweep: Sweep) -> dict[str, Any] | None:
    """Return the content of a score.json; None if it is incomplete."""
    try:
        scores: dict[str, Any] = {str(name): float(value) for name, value in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return scores if all(math.isfinite(scores.get(name, math.nan)) for name in sweep.objectives) else None


def measure_run(run: str, context: SweepContext, threads: int) -> dict[str, float]:
    """Return the scores of a finished run on its validation clips."""
    import torch

    from pipeline.report.curves import read_records
    from pipeline.runs.log_upload import METRICS, read_log
    from pipeline.runs.store import load_run
    from pipeline.tuning.validation_score import disentanglement_scores, final_elbo
    from pipeline.tuning.validation_split import split_as_training
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    model, recipe, origin = load_run(run)
    validation = split_as_training(ClipDataset(context.data, "train"), recipe, run).validation
    records = read_records(read_log(storage.join(run, METRICS)).decode(errors="replace"))
    scores = disentanglement_scores(
        model.eval(), validation, context.judge.load() if context.judge else None,
        length=recipe.training.stage2.clip_frames, pairs=context.sweep.pairs, seed=context.sweep.seed,
        sequence=origin["stage"] >= 2,
    )  # fmt: skip
    return scores | {"elbo": final_elbo(records)}
